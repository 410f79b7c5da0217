// The page: what is written goes to one conversation, or to two side by side.

import { authorization, Chat } from './chat.js';

const at = (id) => document.getElementById(id);
const chats = [];

function addChat() {
  const section = at('chat').content.cloneNode(true).firstElementChild;
  at('chats').append(section);
  chats.push(new Chat(section));
}

function restart() {
  for (const chat of chats.splice(0)) {
    chat.stop();
    chat.section.remove();
  }
  addChat();
  if (at('compare').checked) addChat();
  for (const chat of chats) chat.draw(at('plain').checked);
  end();
}

async function ask(message) {
  const asked = { system: at('system').value.trim(), key: at('key').value };
  sessionStorage.setItem('key', asked.key);
  const [first] = chats;
  at('send').disabled = at('again').disabled = true;
  at('stop').disabled = false;
  await Promise.all(chats.map((chat) => chat.ask(message, asked)));
  if (first === chats[0]) end();  // else there is another conversation by now
}

function end() {
  at('send').disabled = false;
  at('stop').disabled = true;
  at('again').disabled = chats[0].messages.length === 0;
}

at('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  const message = at('message').value.trim();
  if (!message || at('send').disabled) return;
  at('message').value = '';
  ask(message);
});
at('message').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at('composer').requestSubmit();
});
at('stop').addEventListener('click', () => chats.forEach((chat) => chat.stop()));
at('again').addEventListener('click', () => {
  chats.forEach((chat) => chat.forgetAnswer());
  ask();
});
at('new').addEventListener('click', restart);
at('compare').addEventListener('change', restart);
at('plain').addEventListener('change', () => {
  for (const chat of chats) chat.draw(at('plain').checked);
});

at('key').value = sessionStorage.getItem('key') ?? '';
restart();
fetch('/v1/models', { headers: authorization(at('key').value) })
  .then((response) => (response.ok ? response.json() : { data: [{ id: 'the server wants a key: see below' }] }))
  .then(({ data }) => { at('model').textContent = data[0].id; })
  .catch(() => { at('model').textContent = 'no server answers'; });
