// CRC-32, the checksum of pages of Parquet files, and CRC-32C (Castagnoli), that of record files of TensorFlow.
// Sources: RFC 1952, section 8, and RFC 3720, appendix B.4.

/** The table of a polynomial that is given with its bits reversed. */
function table(polynomial: number): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    let rest = byte
    for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ polynomial : rest >>> 1
    return rest
  })
}

const IEEE = table(0xedb88320)
const CASTAGNOLI = table(0x82f63b78)

function checksum(bytes: Uint8Array, table: Uint32Array): number {
  let rest = 0xffffffff
  for (let i = 0; i < bytes.length; i++) rest = table[(rest ^ bytes[i]) & 0xff] ^ (rest >>> 8)
  return ~rest >>> 0
}

/** The checksum CRC-32, 32 bits without a sign. */
export function crc32(bytes: Uint8Array): number {
  return checksum(bytes, IEEE)
}

/** The checksum CRC-32C, 32 bits without a sign. */
export function crc32c(bytes: Uint8Array): number {
  return checksum(bytes, CASTAGNOLI)
}
