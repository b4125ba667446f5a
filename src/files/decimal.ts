// Decimal numbers in cells of tables and in options.

// Each part can match in one way only, so that a long text takes no longer than it is.
const DECIMAL = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i

/** A decimal number, blanks around it allowed; NaN for everything else, hexadecimal numbers and the empty text included. */
export function decimal(text: string): number {
  const bare = text.trim()
  return DECIMAL.test(bare) ? Number(bare) : Number.NaN
}
