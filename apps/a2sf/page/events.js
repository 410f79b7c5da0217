// Server-sent events of a response, as they come: {name, data}.

export async function* eventsOf(response) {
  const decoder = new TextDecoder();
  let text = '';
  for await (const bytes of chunksOf(response.body)) {
    text += decoder.decode(bytes, { stream: true });
    for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
      const event = { name: 'message', data: '' };
      for (const line of text.slice(0, end).split('\n')) {
        if (line.startsWith('event: ')) event.name = line.slice(7);
        if (line.startsWith('data: ')) event.data += line.slice(6);
      }
      if (event.data) yield event;  // a comment has none
    }
  }
}

// Not every browser can iterate over a stream.
async function* chunksOf(stream) {
  const reader = stream.getReader();
  for (let part; !(part = await reader.read()).done;) yield part.value;
}
