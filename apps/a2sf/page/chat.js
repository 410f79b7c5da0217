// One conversation with its own way to bound the memory: it asks, reads the stream, and shows what is said and held.

import { eventsOf } from './events.js';
import { markdown } from './markdown.js';
import { Memory } from './memory.js';
import { Words } from './words.js';

export const authorization = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

const mebibytes = (bytes) => `${(bytes / 1048576).toFixed(2)} MiB`;

function gaugeOf(name, value, largest) {
  const [meter, term, bar, size] = ['meter', 'dt', 'dd', 'dd'].map((tag) => document.createElement(tag));
  meter.max = largest;
  meter.value = value;
  meter.setAttribute('aria-label', name);
  term.textContent = name;
  bar.append(meter);
  size.textContent = mebibytes(value);
  return [term, bar, size];
}

function turnOf({ role, content }) {
  const turn = document.createElement('div');
  turn.className = `turn ${role}`;
  turn.append(...markdown(content));
  return turn;
}

export class Chat {
  constructor(section) {
    this.section = section;
    this.ways = section.querySelector('.ways');
    this.state = section.querySelector('.state');
    this.words = new Words(section);
    this.messages = [];  // without the system prompt
  }

  // Says a message, or asks for the last answer once more.
  async ask(message, { system, key }) {
    if (message) this.messages.push({ role: 'user', content: message });
    this.memory = new Memory();
    this.changed = new Set();  // tokens whose shade is still to be drawn
    this.words.show(this.memory);
    this.abort = new AbortController();
    const answer = { role: 'assistant', content: '' }, began = performance.now();
    try {
      await this.read(await this.send(system, key), answer);
      this.tellSpeed(began);
    } catch (error) {
      this.state.textContent = error.name === 'AbortError' ? 'Stopped.' : error.message;
    }
    if (answer.content) {
      this.messages.push(answer);
    } else if (message) {
      this.messages.pop();  // nobody has answered it: the next one takes its place
    }
    if (this.words.isPlain) this.draw();
  }

  stop() { this.abort?.abort(); }

  forgetAnswer() {
    if (this.messages.at(-1)?.role === 'assistant') this.messages.pop();
  }

  async send(system, key) {
    const messages = system ? [{ role: 'system', content: system }, ...this.messages] : this.messages;
    const response = await fetch('/v1/chat/completions', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...authorization(key) },
      body: JSON.stringify({ messages, stream: true, stream_options: { include_usage: true }, ...this.fields() }),
      signal: this.abort.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    return response;
  }

  fields() {
    const form = Object.fromEntries(new FormData(this.ways)), a2sf = { view: true }, fields = { a2sf };
    if (form.policy) a2sf.policy = form.policy;
    if (form.policy === 'full') delete form.budget;
    for (const name of ['budget', 'alpha', 'sink', 'recent']) if (form[name]) a2sf[name] = Number(form[name]);
    for (const name of ['max_tokens', 'temperature']) if (form[name]) fields[name] = Number(form[name]);
    return fields;
  }

  // Once a frame, however fast tokens come.
  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.words.update(this.changed);
      this.changed.clear();
      this.drawGauges();
    });
  }

  async read(response, answer) {
    this.state.textContent = 'Reading …';
    for await (const { name, data } of eventsOf(response)) {
      if (data === '[DONE]') return;
      const json = JSON.parse(data);
      if (json.error) throw new Error(json.error.message);
      if (name === 'a2sf.view') {
        for (const token of this.memory.apply(json)) this.changed.add(token);
        this.drawSoon();
      } else {
        answer.content += json.choices[0]?.delta.content ?? '';
        this.usage = json.usage ?? this.usage;
        this.state.textContent = 'Answering …';
      }
    }
  }

  tellSpeed(began) {
    const seconds = (performance.now() - began) / 1000, { completion_tokens: tokens, a2sf } = this.usage;
    const { tokens_retained: held, tokens_evicted: gone } = a2sf;
    this.state.textContent = `${a2sf.policy}: ${tokens} tokens in ${seconds.toFixed(1)} s, ` +
        `${(tokens / seconds).toFixed(0)} a second; ${held.toFixed(0)} of ${(held + gone).toFixed(0)} tokens held`;
  }

  drawGauges() {
    const { bytes, mostBytes, fullBytes } = this.memory, largest = Math.max(fullBytes, mostBytes);
    const gauges = { 'memory now': bytes, 'at most': mostBytes, 'if all were kept': fullBytes };
    const rows = Object.entries(gauges).flatMap(([name, value]) => gaugeOf(name, value, largest));
    this.section.querySelector('.gauges').replaceChildren(...rows);
  }

  // The conversation as its tokens, or as text.
  draw(isPlain = this.words.isPlain) {
    this.words.isPlain = isPlain;
    if (isPlain) {
      this.words.box.replaceChildren(...this.messages.map(turnOf));
    } else if (this.memory) {
      this.words.show(this.memory);
      this.words.update(new Set());
      this.words.shadeAll();
    }
  }
}
