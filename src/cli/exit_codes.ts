// The exit codes of every command.

export const EXIT = {
  done: 0,
  /** One line on standard error says what was wrong. */
  error: 1,
  /** The command line was wrong. */
  usage: 2,
  /** A fit did not reach its tolerance; what it reached is written. */
  missed: 3,
} as const

/** Of an interrupt: 128 + the number of the signal, as shells have it. */
export const SIGNAL_EXITS = { SIGINT: 130, SIGTERM: 143 } as const

/** The signals that interrupt a command. */
export const SIGNALS = Object.keys(SIGNAL_EXITS) as (keyof typeof SIGNAL_EXITS)[]
