// Event files of TensorBoard: curves of numbers over steps.
//
// A file is a run of records (the length, 64 bits; its checksum; the bytes; their checksum), each an `Event` in the format of protocol
// buffers; the first says which version of the format follows. TensorBoard draws relative time from the time of each event, so events
// carry the time at which they happened. Two runs therefore never write the same event file, and nothing that is compared bit for bit
// may include one: the numbers themselves are in log.jsonl.
//
// Sources: event.proto, summary.proto and record_writer of TensorFlow.
import { crc32c } from '../files/crc32.ts'

/** The name of a run's event file; TensorBoard looks for "tfevents" in it. */
export const EVENTS_FILE = 'events.out.tfevents.pinball'

const VERSION = 'brain.Event:2'
const LENGTH_BYTES = 8
const CHECK_BYTES = 4
/** Bytes of a record around its content. */
const FRAME_BYTES = LENGTH_BYTES + 2 * CHECK_BYTES

/** The record that an event file begins with; `time` is in seconds since 1970. */
export function firstEvent(time: number): Uint8Array {
  return frame([...float64(1, time), ...text(3, VERSION)])
}

/** A record with numbers by their tags; NaN and infinities are kept. `step` is a whole number from 0. */
export function scalarEvent(step: number, time: number, scalars: Readonly<Record<string, number>>): Uint8Array {
  const values = Object.entries(scalars).flatMap(([tag, value]) => message(1, [...text(1, tag), ...float32(2, value)]))
  return frame([...float64(1, time), ...varint(2 << 3), ...varint(step), ...message(5, values)])
}

/** The tag of a number of the log as transformers has it: `eval_loss` is `eval/loss`, `loss` is `train/loss`. */
export function tagOf(name: string): string {
  return name.startsWith('eval_') ? `eval/${name.slice(5)}` : `train/${name}`
}

/**
 * Bytes of an event file that stay when training goes on after `step`: all whole and undamaged records before the first of a later
 * step. 0 where the file does not begin as an event file: it is to be made anew.
 */
export function keptBytes(bytes: Uint8Array, step: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  while (at + FRAME_BYTES <= bytes.length) {
    const length = Number(view.getBigUint64(at, true))
    const end = at + FRAME_BYTES + length
    if (end > bytes.length || view.getUint32(at + LENGTH_BYTES, true) !== masked(bytes.subarray(at, at + LENGTH_BYTES)))
      break
    const content = bytes.subarray(end - CHECK_BYTES - length, end - CHECK_BYTES)
    if (view.getUint32(end - CHECK_BYTES, true) !== masked(content)) break
    const found = stepOf(content)
    if (found === null || found > step) break
    at = end
  }
  return at
}

/** The step of an event, 0 where it says none; null where it is not written as `firstEvent` and `scalarEvent` do. */
function stepOf(content: Uint8Array): number | null {
  // The time comes first: its field and eight bytes.
  if (content[0] !== ((1 << 3) | 1) || content.length < 10) return null
  if (content[9] !== 2 << 3) return 0
  let step = 0
  for (let i = 10, scale = 1; i < content.length; i++, scale *= 128) {
    step += (content[i] & 127) * scale
    if (content[i] < 128) return step
  }
  return null
}

function frame(content: readonly number[]): Uint8Array {
  const record = new Uint8Array(FRAME_BYTES + content.length)
  const view = new DataView(record.buffer)
  view.setBigUint64(0, BigInt(content.length), true)
  view.setUint32(LENGTH_BYTES, masked(record.subarray(0, LENGTH_BYTES)), true)
  record.set(content, LENGTH_BYTES + CHECK_BYTES)
  view.setUint32(record.length - CHECK_BYTES, masked(Uint8Array.from(content)), true)
  return record
}

/** A checksum as records have it: turned and shifted, as checksums of what holds checksums are weak. */
function masked(bytes: Uint8Array): number {
  const check = crc32c(bytes)
  return (((check >>> 15) | (check << 17)) + 0xa282ead8) >>> 0
}

/** A whole number from 0 to 2^53, seven bits a byte, lowest first. */
function varint(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  return [...bytes, rest]
}

function message(field: number, content: readonly number[]): number[] {
  return [...varint((field << 3) | 2), ...varint(content.length), ...content]
}

const text = (field: number, value: string): number[] => message(field, [...new TextEncoder().encode(value)])
const float64 = (field: number, value: number): number[] => [
  (field << 3) | 1,
  ...new Uint8Array(littleEndian(8, (view) => view.setFloat64(0, value, true))),
]
const float32 = (field: number, value: number): number[] => [
  (field << 3) | 5,
  ...new Uint8Array(littleEndian(4, (view) => view.setFloat32(0, value, true))),
]

function littleEndian(bytes: number, set: (view: DataView) => void): ArrayBuffer {
  const buffer = new ArrayBuffer(bytes)
  set(new DataView(buffer))
  return buffer
}
