// CRC-32C (Castagnoli), the checksum of record files of TensorFlow. Source: RFC 3720, appendix B.4.

// The polynomial 0x1EDC6F41 with its bits reversed.
const POLYNOMIAL = 0x82f63b78

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ POLYNOMIAL : rest >>> 1
  return rest
})

/** The checksum, 32 bits without a sign. */
export function crc32c(bytes: Uint8Array): number {
  let rest = 0xffffffff
  for (const byte of bytes) rest = TABLE[(rest ^ byte) & 0xff] ^ (rest >>> 8)
  return ~rest >>> 0
}
