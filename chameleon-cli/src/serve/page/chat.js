// The conversation: every question with its answers side by side, each streamed.

import { Failure, sentence, streamAnswer } from "./api.js";

/** Near enough to the end to follow what is written. */
const FOLLOW_DISTANCE = 80;

export class Chat {
  constructor(log, welcome) {
    this.log = log;
    this.welcome = welcome;
    this.turns = [];
    this.stopper = null;
    /** Models without a template for conversations continue texts instead. */
    this.hasTemplate = true;
    this.onNote = () => {};
  }

  get isAnswering() {
    return this.stopper !== null;
  }

  stop() {
    this.stopper?.abort();
  }

  clear() {
    this.stop();
    this.turns = [];
    this.log.replaceChildren(this.welcome);
  }

  /** Asks every side at once and returns when all have ended, with what is worth saying aloud. */
  async ask(text, sides, settings) {
    this.stopper = new AbortController();
    this.welcome.remove();
    this.log.setAttribute("aria-busy", "true");
    const turn = new Turn(text, sides);
    this.log.append(turn.node);
    turn.node.scrollIntoView({ block: "start" });
    const { signal } = this.stopper;
    await Promise.all(turn.answers.map((answer) => this.fill(answer, text, settings, signal)));
    turn.compare();
    this.turns.push(turn);
    this.stopper = null;
    this.log.setAttribute("aria-busy", "false");
    return turn;
  }

  async fill(answer, text, settings, signal) {
    const on = {
      note: (note) => {
        answer.note(note);
        this.onNote(answer, note);
      },
      text: (piece) => this.following(() => answer.write(piece)),
      end: (reason) => (answer.reason = reason),
      usage: (usage) => (answer.numTokens = usage.completion_tokens),
    };
    try {
      await this.request(answer, text, settings, signal, on);
      answer.finish();
    } catch (error) {
      if (signal.aborted) answer.finish("stopped");
      else answer.fail(error);
    }
  }

  async request(answer, text, settings, signal, on) {
    const body = { ...settings, model: answer.side.model };
    if (!answer.side.adapter) delete body.chameleon;
    answer.begin();
    if (this.hasTemplate) {
      const messages = [...this.history(answer.side.place), { role: "user", content: text }];
      try {
        return await streamAnswer("v1/chat/completions", { ...body, messages }, signal, on);
      } catch (error) {
        if (error.code !== "no_chat_template") throw error;
        this.hasTemplate = false;
      }
    }
    return streamAnswer("v1/completions", { ...body, prompt: text }, signal, on);
  }

  /** What one side has heard and said; questions it did not answer are left out. */
  history(place) {
    return this.turns.flatMap((turn) => {
      const said = turn.answers.find((answer) => answer.side.place === place);
      if (!said?.text) return [];
      return [
        { role: "user", content: turn.text },
        { role: "assistant", content: said.text },
      ];
    });
  }

  /** Keeps the end in sight while something is written, unless the reader has scrolled away from it. */
  following(write) {
    const { log } = this;
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < FOLLOW_DISTANCE;
    write();
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  }
}

class Turn {
  constructor(text, sides) {
    this.text = text;
    this.node = clone("turn-template");
    this.node.querySelector(".asked").textContent = text;
    this.answers = sides.map((side) => new Answer(side));
    this.node.querySelector(".answers").append(...this.answers.map((answer) => answer.node));
  }

  /** Steps back from what both answers say, so that the difference is seen. */
  compare() {
    const [left, right] = this.answers;
    if (!right || left.isBroken || right.isBroken || !left.text || !right.text) return;
    const shared = sharedLength(left.text, right.text);
    const isSame = shared === left.text.length && shared === right.text.length;
    if (isSame) right.add("same as the base");
    else if (shared > 0) [left, right].forEach((answer) => answer.show(shared));
  }
}

class Answer {
  constructor(side) {
    this.side = side;
    this.text = "";
    this.reason = "";
    this.numTokens = 0;
    this.isBroken = false;
    this.node = clone("answer-template");
    this.node.classList.add(side.place);
    this.part("h3").textContent = side.label;
    this.node.setAttribute("aria-label", `${side.label}, answer`);
  }

  part(selector) {
    return this.node.querySelector(selector);
  }

  begin() {
    this.asked = performance.now();
    this.node.classList.add("waiting");
  }

  note(note) {
    if (note.cluster == null) return;
    const group = this.part(".group");
    group.textContent = `group ${note.cluster}`;
    group.hidden = false;
  }

  write(piece) {
    const now = performance.now();
    this.first ??= now;
    this.latest = now;
    this.numTokens += 1;
    this.text += piece;
    this.node.classList.remove("waiting");
    this.part(".own").textContent = this.text;
  }

  show(shared) {
    this.part(".shared").textContent = this.text.slice(0, shared);
    this.part(".own").textContent = this.text.slice(shared);
  }

  finish(reason = this.reason) {
    this.close();
    if (!this.text && reason !== "stopped") this.add("the answer is empty");
    if (this.first) {
      // Several tokens may arrive at once, so the rate is computed over the whole time.
      const seconds = (this.latest - this.asked) / 1000;
      const tokens = this.numTokens === 1 ? "1 token" : `${this.numTokens} tokens`;
      this.add(`${tokens} in ${seconds.toFixed(2)} s`);
      this.add(`${(this.numTokens / seconds).toFixed(1)} per second`);
      this.add(`first after ${((this.first - this.asked) / 1000).toFixed(2)} s`);
    }
    if (reason === "stopped") this.add("stopped by you");
    if (reason === "length") this.add("cut at the limit");
  }

  fail(error) {
    this.close();
    this.isBroken = true;
    this.error = error;
    const failure = this.part(".failure");
    // Any other error is a bug of this page, and must not look like a finished answer.
    failure.textContent = error instanceof Failure ? sentence(error.message) : `The page failed: ${error.message}`;
    failure.hidden = false;
  }

  close() {
    this.node.classList.remove("waiting");
    this.node.setAttribute("aria-busy", "false");
  }

  add(words) {
    const part = document.createElement("span");
    part.textContent = words;
    this.part("footer").append(part);
  }
}

function clone(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

/** Characters at the start that both have; no word is cut in two. */
function sharedLength(left, right) {
  let length = 0;
  while (length < left.length && left[length] === right[length]) length += 1;
  const isWhole = [left, right].every((text) => length === text.length || /\s/.test(text[length]));
  return isWhole ? length : left.slice(0, length).search(/\s\S*$/) + 1;
}
