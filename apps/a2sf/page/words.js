// The conversation as its tokens, each with a shade for how many places still hold it.

import { drawHolders } from './holders.js';

let boxes = 0;

export class Words {
  constructor(section) {
    this.name = `words-${++boxes}`;
    this.isPlain = false;  // the box shows texts instead
    this.box = section.querySelector('.words');
    this.figure = section.querySelector('.holders');
    this.time = section.querySelector('.time');
    this.moment = section.querySelector('.moment');
    this.chosen = -1;
    this.box.addEventListener('click', (event) => {
      const token = event.target.closest('.token');
      if (token) this.choose(Number(token.dataset.number));
    });
    this.box.addEventListener('keydown', (event) => this.take(event));
    this.time.addEventListener('input', () => this.shadeAll());
    section.querySelector('.survived').addEventListener('click', () => this.tellSelected(section));
  }

  show(memory) {
    this.memory = memory;
    this.chosen = -1;
    this.figure.hidden = true;
    this.box.replaceChildren();
    this.time.value = this.time.max = 0;
  }

  get showsTokens() { return this.memory && !this.isPlain; }

  // After memory.apply(), with what that returned.
  update(changed) {
    if (!this.showsTokens) return;
    const isAtEnd = this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 40;
    for (let i = this.box.children.length; i < this.memory.tokens.length; ++i) this.box.append(this.spanOf(i));
    const now = Number(this.time.value) === Number(this.time.max);
    this.time.max = this.memory.tokens.length;
    if (now) this.time.value = this.time.max;
    if (now) for (const token of changed) this.shade(token, this.memory.tokens.length);
    this.tellMoment();
    if (this.chosen >= 0 && changed.has(this.chosen)) this.drawChosen();
    if (isAtEnd) this.box.scrollTop = this.box.scrollHeight;
  }

  spanOf(number) {
    const span = document.createElement('span'), text = this.memory.tokens[number];
    span.className = /^<[|a-z_/].*>$/.test(text) ? 'token control' : 'token';
    span.textContent = text;
    span.dataset.number = number;
    span.id = `${this.name}-${number}`;
    span.setAttribute('role', 'option');
    return span;
  }

  shade(token, time) {
    const span = this.box.children[token], isLater = token >= time;
    span.classList.toggle('later', isLater);
    span.style.setProperty('--held', isLater ? 0 : this.memory.share(token, time).toFixed(3));
  }

  shadeAll() {
    if (!this.showsTokens) return;
    for (let token = 0; token < this.box.children.length; ++token) this.shade(token, Number(this.time.value));
    this.tellMoment();
  }

  tellMoment() {
    const unknown = this.memory.isLossy ? '; what is held will be known at the end' : '';
    this.moment.value = `${this.time.value} of ${this.time.max} tokens read${unknown}`;
  }

  take(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!this.showsTokens || (!step && event.key !== 'Enter')) return;
    event.preventDefault();
    const next = Math.max(0, this.chosen) + (step ?? 0);
    if (next >= 0 && next < this.box.children.length) this.choose(next);
  }

  choose(number) {
    const before = this.box.querySelector('.chosen'), token = this.box.children[number];
    before?.classList.remove('chosen');
    before?.removeAttribute('aria-selected');
    this.chosen = number;
    token.classList.add('chosen');
    token.setAttribute('aria-selected', 'true');
    this.box.setAttribute('aria-activedescendant', token.id);
    token.scrollIntoView({ block: 'nearest' });
    this.drawChosen();
  }

  drawChosen() { drawHolders(this.figure, this.memory, this.chosen); }

  tellSelected(section) {
    const selection = document.getSelection(), answer = section.querySelector('.answer');
    const tokens = [...this.box.children].filter((span) => span.dataset.number && selection.containsNode(span, true));
    if (this.memory?.isLossy) {
      answer.value = 'Not known before the answer ends.';
      return;
    }
    if (tokens.length === 0) {
      answer.value = 'Select some of the conversation first.';
      return;
    }
    const shares = tokens.map((span) => this.memory.share(Number(span.dataset.number)));
    const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
    const lost = shares.filter((share) => share === 0).length;
    answer.value = `${Math.round(100 * mean)} % of it is held; ${lost} of ${tokens.length} tokens by no head any more.`;
  }
}
