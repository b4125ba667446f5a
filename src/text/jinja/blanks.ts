// What Python takes for blank, where JavaScript has another opinion: U+001C to U+001F and U+0085 are, U+FEFF is not.

/** The inside of a set of a regular expression: Python's \s, and what strip() and split() take away. */
export const BLANKS = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
