// What stored values of Parquet columns mean: texts, numbers, dates and times as JSON has them, or a reason why it cannot.
import type { SchemaElement } from 'hyparquet'

/** A value that JSON cannot hold; `reason` is what it is. */
export class Refused {
  readonly reason: string

  constructor(reason: string) {
    this.reason = reason
  }
}

/** Turns a stored value into one of JSON, or says why it cannot. */
export type Convert = (stored: number | bigint | Uint8Array) => unknown

/** The meaning that the schema gives to a column's type, by its annotation of either kind; null without one. */
export function annotation({ logical_type: logical, converted_type: converted }: SchemaElement): string | null {
  if (logical?.type !== undefined) return logical.type
  if (converted === undefined) return null
  if (/^U?INT_\d+$/.test(converted)) return 'INTEGER'
  if (converted === 'UTF8') return 'STRING'
  return converted.replace(/^(TIME|TIMESTAMP)_(MILLIS|MICROS)$/, '$1')
}

const NUMERIC = ['INT32', 'INT64', 'FLOAT', 'DOUBLE']
const NUMERIC_MEANINGS = ['INTEGER', 'DECIMAL', 'FLOAT16']

/** Says whether a column holds integers, floats or decimals, one a row. */
export function isNumeric(element: SchemaElement): boolean {
  if (element.type === undefined || element.repetition_type === 'REPEATED') return false
  const meaning = annotation(element)
  return meaning === null ? NUMERIC.includes(element.type) : NUMERIC_MEANINGS.includes(meaning)
}

/** Numbers of a column for which `isNumeric` holds: the nearest float64 of each. */
export function numberConvert(element: SchemaElement): Convert {
  if (annotation(element) === 'DECIMAL') {
    const scale = scaleOf(element)
    return (stored) => decimalNumber(unscaled(stored), scale)
  }
  if (annotation(element) === 'FLOAT16') return (stored) => float16(stored as Uint8Array)
  const unsign = unsigned(element)
  return (stored) => Number(unsign(stored as number | bigint))
}

/** Values of a column as JSON has them. */
export function valueConvert(element: SchemaElement): Convert {
  const { type } = element
  switch (annotation(element)) {
    case 'STRING':
    case 'ENUM':
    case 'JSON':
      return type === 'BYTE_ARRAY'
        ? (stored) => text(stored as Uint8Array, 'text that is not UTF-8')
        : plainValue(element)
    case 'DECIMAL': {
      const scale = scaleOf(element)
      return (stored) => exactDecimal(unscaled(stored), scale)
    }
    case 'DATE':
      return type === 'INT32' ? (stored) => date(stored as number) : plainValue(element)
    case 'TIME':
      return temporal(element, ({ seconds, fraction }) =>
        seconds >= 0 && seconds < 86400 ? iso(seconds, 'time') + fraction : new Refused('a time outside of the day'),
      )
    case 'TIMESTAMP': {
      const mark = isUtc(element) ? 'Z' : ''
      return temporal(element, ({ seconds, fraction }) => {
        const moment = iso(seconds, 'date')
        return moment === null ? new Refused('a time outside of the calendar') : moment + fraction + mark
      })
    }
    case 'FLOAT16':
      return type === 'FIXED_LEN_BYTE_ARRAY' && element.type_length === 2
        ? (stored) => float16(stored as Uint8Array)
        : plainValue(element)
    case 'UUID':
      return type === 'FIXED_LEN_BYTE_ARRAY' && element.type_length === 16
        ? (stored) => uuid(stored as Uint8Array)
        : plainValue(element)
    case 'INTERVAL':
      return () => new Refused('an INTERVAL')
    default:
      return plainValue(element)
  }
}

/** Values of a column by their stored type alone. */
function plainValue(element: SchemaElement): Convert {
  const { type } = element
  if (type === 'BOOLEAN') return (stored) => stored === 1
  if (type === 'FLOAT' || type === 'DOUBLE') return (stored) => stored
  if (type === 'INT32' || type === 'INT64') {
    const unsign = unsigned(element)
    return (stored) => integer(unsign(stored as number | bigint))
  }
  if (type === 'INT96') return (stored) => impala(stored as Uint8Array)
  // Old writers do not say that a column is text.
  return (stored) => text(stored as Uint8Array, 'binary data')
}

function unsigned(element: SchemaElement): (stored: number | bigint) => number | bigint {
  const { logical_type: logical, converted_type: converted, type } = element
  const isUnsigned = logical?.type === 'INTEGER' ? !logical.isSigned : converted?.startsWith('UINT_')
  if (!isUnsigned) return (stored) => stored
  return type === 'INT64' ? (stored) => BigInt.asUintN(64, stored as bigint) : (stored) => (stored as number) >>> 0
}

function integer(value: number | bigint): number | Refused {
  if (typeof value === 'number') return value
  if (value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER) return Number(value)
  return new Refused(`the integer ${value}, which is beyond 2^53`)
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function text(bytes: Uint8Array, otherwise: string): string | Refused {
  try {
    return UTF8.decode(bytes)
  } catch {
    return new Refused(otherwise)
  }
}

function scaleOf({ logical_type: logical, scale }: SchemaElement): number {
  const found = (logical?.type === 'DECIMAL' ? logical.scale : scale) ?? 0
  if (!(found >= 0 && found <= 1000)) throw new Error(`a decimal has the scale ${found}`)
  return found
}

/** The integer that a decimal is stored as. */
function unscaled(stored: number | bigint | Uint8Array): bigint {
  if (!(stored instanceof Uint8Array)) return BigInt(stored)
  let value = 0n
  for (const byte of stored) value = (value << 8n) | BigInt(byte)
  return BigInt.asIntN(8 * stored.length, value)
}

/** The nearest float64 to value / 10^scale. */
function decimalNumber(value: bigint, scale: number): number {
  const near = Number(value)
  // Both are exact, so one division rounds once.
  if (Number.isSafeInteger(near) && scale <= 22) return near / 10 ** scale
  return Number(`${value}e-${scale}`)
}

// Every decimal of this many digits is another float64.
const EXACT_DIGITS = 15

function exactDecimal(value: bigint, scale: number): number | Refused {
  const digits = `${value}`.replace(/^-/, '').replace(/0+$/, '')
  if (digits.length <= EXACT_DIGITS) return decimalNumber(value, scale)
  return new Refused(`the decimal ${value}e-${scale}, which has more than ${EXACT_DIGITS} digits`)
}

function float16(bytes: Uint8Array): number {
  const bits = bytes[0] | (bytes[1] << 8)
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 0x3ff
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25)
}

function uuid(bytes: Uint8Array): string {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

function date(days: number): string | Refused {
  return iso(days * 86400, 'date')?.slice(0, -9) ?? new Refused('a date outside of the calendar')
}

/** Seconds since 1970 as a date and a time, or as the time of a day; null beyond the years of ISO 8601. */
function iso(seconds: number, what: 'date' | 'time'): string | null {
  const moment = new Date(seconds * 1000)
  const year = moment.getUTCFullYear()
  if (!(year >= 0 && year <= 9999)) return null
  return moment.toISOString().slice(what === 'date' ? 0 : 11, 19)
}

interface Moment {
  readonly seconds: number
  /** The digits after the seconds that the unit has, with their point. */
  readonly fraction: string
}

const PLACES = { MILLIS: 3, MICROS: 6, NANOS: 9 }

function temporal(element: SchemaElement, show: (moment: Moment) => unknown): Convert {
  const { logical_type: logical, converted_type: converted, type } = element
  if (type !== 'INT32' && type !== 'INT64') return plainValue(element)
  const unit =
    logical?.type === 'TIME' || logical?.type === 'TIMESTAMP'
      ? logical.unit
      : converted?.endsWith('_MICROS')
        ? 'MICROS'
        : 'MILLIS'
  const places = PLACES[unit]
  return (stored) => show(split(BigInt(stored as number | bigint), places))
}

function split(value: bigint, places: number): Moment {
  const unit = 10n ** BigInt(places)
  const rest = ((value % unit) + unit) % unit
  return { seconds: Number((value - rest) / unit), fraction: `.${`${rest}`.padStart(places, '0')}` }
}

function isUtc({ logical_type: logical, converted_type: converted }: SchemaElement): boolean {
  if (logical?.type === 'TIMESTAMP') return logical.isAdjustedToUTC
  return converted?.startsWith('TIMESTAMP_') ?? false
}

// The Julian day of 1970-01-01.
const EPOCH_DAY = 2440588

/** A time of INT96: nanoseconds of the day, then the Julian day. */
function impala(bytes: Uint8Array): string | Refused {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 12)
  const { seconds, fraction } = split(view.getBigInt64(0, true), 9)
  const moment = iso((view.getInt32(8, true) - EPOCH_DAY) * 86400 + seconds, 'date')
  return moment === null ? new Refused('a time outside of the calendar') : moment + fraction
}
