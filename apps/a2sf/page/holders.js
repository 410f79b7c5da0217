// Who holds a token: a table of layers and KV heads, with when each let it go.

export function drawHolders(figure, memory, token) {
  figure.hidden = false;
  figure.querySelector('figcaption').textContent =
      `${JSON.stringify(memory.tokens[token])}, token ${token}: ${memory.holders(token)} of ${memory.places} KV heads hold it. ` +
      'A row is a layer; a number says how many tokens had been read when the head let it go.';
  const rows = [];
  for (let layer = 0; layer < memory.layers; ++layer) {
    const row = document.createElement('tr'), name = document.createElement('th');
    name.textContent = layer;
    name.scope = 'row';
    row.append(name);
    for (let head = 0; head < memory.heads; ++head) row.append(cellOf(memory, token, layer * memory.heads + head));
    rows.push(row);
  }
  figure.querySelector('table').replaceChildren(...rows);
}

function cellOf(memory, token, place) {
  const cell = document.createElement('td'), isHeld = memory.isHeld(token, place);
  cell.className = isHeld ? 'held' : '';
  cell.textContent = isHeld ? '' : memory.left[token][place];
  if (isHeld) cell.setAttribute('aria-label', 'held');
  return cell;
}
