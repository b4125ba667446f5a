// What a template may spend: steps, lengths of texts and lists, and calls inside calls. Templates come from anywhere.

/** Errors of templates: what Python's jinja2 raises, in its words where it has some. */
export class TemplateError extends Error {}

const STEPS = 2e7
/** Characters of a text, members of a list. */
const LENGTH = 2 ** 24
const CALLS = 100

export class Budget {
  #steps = STEPS
  #calls = 0

  /** Takes steps; a step is an expression, or some members of what one makes. */
  spend(steps = 1): void {
    this.#steps -= steps
    if (this.#steps < 0) throw new TemplateError(`takes more than ${STEPS} steps`)
  }

  /** Takes what a text or a list of this length costs, before it is made. */
  size(length: number): void {
    if (length > LENGTH) throw new TemplateError(`makes a text or a list of more than ${LENGTH} characters or members`)
    this.spend(1 + length / 16)
  }

  /** A text that has been made. */
  text(text: string): string {
    this.size(text.length)
    return text
  }

  /** Runs a macro. */
  call<T>(work: () => T): T {
    if (++this.#calls > CALLS) throw new TemplateError(`has more than ${CALLS} calls inside each other`)
    try {
      return work()
    } finally {
      this.#calls--
    }
  }
}
