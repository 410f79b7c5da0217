// The conversation as its tokens, each with a shade for how many places still hold it.

import { drawHolders } from './holders.js';

export class Words {
  constructor(section) {
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
    this.isLive = true;
  }

  // After memory.apply(), with what that returned.
  update(changed) {
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
    span.role = 'option';
    return span;
  }

  shade(token, time) {
    const span = this.box.children[token], isLater = token >= time;
    span.classList.toggle('later', isLater);
    span.style.setProperty('--held', isLater ? 0 : this.memory.share(token, time).toFixed(3));
  }

  shadeAll() {
    if (!this.memory) return;
    for (let token = 0; token < this.box.children.length; ++token) this.shade(token, Number(this.time.value));
    this.tellMoment();
  }

  tellMoment() { this.moment.value = `${this.time.value} of ${this.time.max} tokens read`; }

  take(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!this.memory || (!step && event.key !== 'Enter')) return;
    event.preventDefault();
    const next = Math.max(0, this.chosen) + (step ?? 0);
    if (next >= 0 && next < this.box.children.length) this.choose(next);
  }

  choose(number) {
    this.box.querySelector('.chosen')?.classList.remove('chosen');
    this.chosen = number;
    this.box.children[number].classList.add('chosen');
    this.box.children[number].scrollIntoView({ block: 'nearest' });
    this.drawChosen();
  }

  drawChosen() { drawHolders(this.figure, this.memory, this.chosen); }

  tellSelected(section) {
    const selection = document.getSelection(), answer = section.querySelector('.answer');
    const tokens = [...this.box.children].filter((span) => span.dataset.number && selection.containsNode(span, true));
    if (!this.memory || tokens.length === 0) {
      answer.value = 'Select some of the conversation first.';
      return;
    }
    const shares = tokens.map((span) => this.memory.share(Number(span.dataset.number)));
    const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
    const lost = shares.filter((share) => share === 0).length;
    answer.value = `${Math.round(100 * mean)} % of it is held; ${lost} of ${tokens.length} tokens by no head any more.`;
  }
}
