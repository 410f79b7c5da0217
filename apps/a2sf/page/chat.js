// One conversation with its own way to bound the memory: it asks, reads the stream, and shows what is said and held.

import { eventsOf } from './events.js';
import { markdown } from './markdown.js';
import { Memory } from './memory.js';
import { Words } from './words.js';

const mebibytes = (bytes) => `${(bytes / 1048576).toFixed(2)} MiB`;

export class Chat {
  constructor(section) {
    this.section = section;
    this.ways = section.querySelector('.ways');
    this.state = section.querySelector('.state');
    this.words = new Words(section);
    this.messages = [];  // without the system prompt
    this.isPlain = false;
  }

  // Says a message, or asks for the last answer once more.
  async ask(message, { system, key }) {
    if (message) this.messages.push({ role: 'user', content: message });
    this.memory = new Memory();
    this.words.show(this.memory);
    this.abort = new AbortController();
    const answer = { role: 'assistant', content: '' }, began = performance.now();
    try {
      await this.read(await this.send(system, key), answer);
      this.tellSpeed(began);
    } catch (error) {
      this.state.textContent = error.name === 'AbortError' ? 'Stopped.' : error.message;
    }
    if (answer.content) this.messages.push(answer);
    this.draw();
  }

  stop() { this.abort?.abort(); }

  forgetAnswer() {
    if (this.messages.at(-1)?.role === 'assistant') this.messages.pop();
  }

  async send(system, key) {
    const messages = system ? [{ role: 'system', content: system }, ...this.messages] : this.messages;
    const response = await fetch('/v1/chat/completions', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...(key ? { Authorization: `Bearer ${key}` } : {}) },
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

  async read(response, answer) {
    this.state.textContent = 'Reading …';
    for await (const { name, data } of eventsOf(response)) {
      if (data === '[DONE]') return;
      const json = JSON.parse(data);
      if (json.error) throw new Error(json.error.message);
      if (name === 'a2sf.view') {
        this.words.update(this.memory.apply(json));
        this.drawGauges();
      } else {
        answer.content += json.choices[0]?.delta.content ?? '';
        this.usage = json.usage ?? this.usage;
        this.state.textContent = 'Answering …';
      }
    }
  }

  tellSpeed(began) {
    const seconds = (performance.now() - began) / 1000, { completion_tokens: tokens, a2sf } = this.usage;
    const kept = `${a2sf.tokens_retained.toFixed(0)} of ${(a2sf.tokens_retained + a2sf.tokens_evicted).toFixed(0)} tokens held`;
    this.state.textContent = `${a2sf.policy}: ${tokens} tokens in ${seconds.toFixed(1)} s, ${(tokens / seconds).toFixed(0)} a second; ${kept}`;
  }

  drawGauges() {
    const { bytes, mostBytes, fullBytes } = this.memory, list = this.section.querySelector('.gauges');
    const gauge = (name, value) => {
      const meter = document.createElement('meter'), parts = ['dt', 'dd', 'dd'].map((tag) => document.createElement(tag));
      meter.max = Math.max(fullBytes, mostBytes);
      meter.value = value;
      meter.ariaLabel = name;
      parts[0].textContent = name;
      parts[1].append(meter);
      parts[2].textContent = mebibytes(value);
      return parts;
    };
    list.replaceChildren(...gauge('memory now', bytes), ...gauge('at most', mostBytes), ...gauge('if all were kept', fullBytes));
  }

  // The conversation as its tokens, or as text.
  draw() {
    if (this.memory && !this.isPlain) {
      const { memory } = this;
      this.words.show(memory);
      this.words.update(new Set(memory.tokens.keys()));
      this.words.shadeAll();
    } else {
      this.words.box.replaceChildren(...this.messages.map(({ role, content }) => {
        const turn = document.createElement('div');
        turn.className = `turn ${role}`;
        turn.append(...markdown(content));
        return turn;
      }));
    }
  }
}
