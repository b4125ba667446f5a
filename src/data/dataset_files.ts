// Files of datasets on the local disk: those that a person names, and those of the hub, which are fetched where they are not here.
import { openFile } from '../files/disk.ts'
import { openHub } from '../files/hub_cache.ts'
import type { FileRecord } from '../files/records.ts'
import type { Dataset, RankedSet } from './dataset.ts'
import { type DataFile, rankedRows, startReport } from './rows.ts'

/** Called while a file of the hub is fetched: its name with the repository's, the bytes that are here, and all. */
export type OnFetch = (name: string, bytes: number, total: number) => void

/** Files by their paths. Throws where one cannot be opened. */
export async function localFiles(paths: readonly string[]): Promise<DataFile[]> {
  const files: DataFile[] = []
  for (const path of paths) {
    const source = await openFile(path)
    await source.close()
    files.push({ path, size: source.byteLength, open: () => openFile(path) })
  }
  return files
}

/** The files of a dataset, and the commit of its repository that they are of; fetches those that are not here yet. */
export async function hubFiles(
  { hub, files: pattern }: Dataset,
  onFetch: OnFetch = () => {},
): Promise<{ commit: string; files: DataFile[] }> {
  const found = await openHub({ type: 'dataset', name: hub }, pattern, {
    onProgress: (path, bytes, total) => onFetch(`${hub}/${path}`, bytes, total),
  })
  for (const file of found.files) await (await file.open()).close()
  return found
}

/** All rows of a set of preferences of the hub, as records. */
export async function hubRecords(dataset: RankedSet, onFetch?: OnFetch): Promise<FileRecord[]> {
  const { files } = await hubFiles(dataset, onFetch)
  const records: FileRecord[] = []
  const rows = rankedRows([{ dataset, files }], { limit: Infinity, seed: 0 }, startReport())
  for await (const value of rows) records.push({ where: `${dataset.hub} row ${records.length + 1}`, value })
  return records
}
