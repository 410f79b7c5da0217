// A little markdown as nodes: paragraphs, headings, lists, code, bold, italics. Text only ever becomes text: what looks
// like HTML stays what it looks like.

const element = (name, ...children) => {
  const node = document.createElement(name);
  node.append(...children);
  return node;
};

const INLINE = [[/`([^`]+)`/, (found) => element('code', found[1])],
                [/\*\*([^*]+)\*\*/, (found) => element('strong', ...inline(found[1]))],
                [/\*([^*\s][^*]*)\*/, (found) => element('em', ...inline(found[1]))]];

function inline(text) {
  for (const [pattern, made] of INLINE) {
    const found = pattern.exec(text);
    if (!found) continue;
    const after = found.index + found[0].length;
    return [...inline(text.slice(0, found.index)), made(found), ...inline(text.slice(after))];
  }
  return [text];
}

function blockOf(text) {
  const lines = text.split('\n'), heading = /^(#{1,4}) (.*)$/.exec(text);
  if (heading) return element(`h${heading[1].length + 2}`, ...inline(heading[2]));
  if (lines.every((line) => /^\s*([-*]|\d+\.) /.test(line))) {
    const items = lines.map((line) => element('li', ...inline(line.replace(/^\s*([-*]|\d+\.) /, ''))));
    return element(/^\s*\d/.test(text) ? 'ol' : 'ul', ...items);
  }
  return element('p', ...inline(text));
}

export function markdown(text) {
  return text.split(/^```\w*\n?/m).flatMap((part, i) => {
    if (i % 2 === 1) return [element('pre', element('code', part))];
    return part.split(/\n{2,}/).map((block) => block.trim()).filter(Boolean).map(blockOf);
  });
}
