// What a cache holds of a conversation, and when it let each token go: made of the events a2sf.view.

const HELD = 0x7fffffff;  // no time is later

export class Memory {
  constructor() {
    this.tokens = [];  // texts
    this.left = [];    // of each token, by place: how many tokens had been read when it left, or HELD
    this.places = this.layers = this.heads = 0;
    this.bytes = this.mostBytes = this.fullBytes = 0;
    this.isLossy = false;  // more has left than was told: nothing is known until all is told anew
  }

  // Takes an event's data. Returns the numbers of the tokens that some place has let go.
  apply(view) {
    if (view.layers) {
      Object.assign(this, { layers: view.layers, heads: view.kv_heads, places: view.layers * view.kv_heads,
                            mostBytes: view.most_bytes, fullBytes: view.full_bytes });
    }
    for (const piece of view.tokens) {
      this.tokens.push(this.textOf(piece));
      this.left.push(new Int32Array(this.places).fill(HELD));
    }
    this.bytes = view.bytes;
    this.isLossy = Boolean(view.lossy) || (this.isLossy && !view.held);
    const changed = new Set();
    if (view.held) this.applyHeld(view.held, changed);
    for (let i = 0; view.gone && i < view.gone.length; i += 2) this.leave(view.gone[i + 1], view.gone[i], changed);
    return changed;
  }

  // A character of several tokens is written with its last one.
  textOf(piece) {
    if (typeof piece === 'string') return piece;
    this.decoder ??= new TextDecoder();
    return this.decoder.decode(new Uint8Array(piece), { stream: true });
  }

  applyHeld({ tokens, places }, changed) {
    places.forEach((bits, place) => {
      for (let token = 0; token < tokens; ++token) {
        const byte = parseInt(bits.slice(2 * (token >> 3), 2 * (token >> 3) + 2) || '0', 16);
        if (!(byte >> (token & 7) & 1)) this.leave(token, place, changed);
      }
    });
  }

  leave(token, place, changed) {
    if (this.left[token][place] !== HELD) return;
    this.left[token][place] = this.tokens.length;
    changed.add(token);
  }

  // How many places held the token when so many had been read, and what share of all.
  holders(token, time = this.tokens.length) {
    let held = 0;
    for (const left of this.left[token]) held += left > time;
    return held;
  }

  share(token, time) { return this.holders(token, time) / this.places; }

  isHeld(token, place) { return this.left[token][place] === HELD; }
}
