// The public names in Node: everything of index.ts, and files on disk.

export { readCsv } from './files/csv.ts'
export { directoryStore, directoryTree, openDirectory, openFile, writeFileAtomic } from './files/disk.ts'
export { type HubFile, type HubListing, type HubOptions, type HubRepo, hubSource, listHub } from './files/hub.ts'
export { type CachedFile, type HubCacheOptions, openHub } from './files/hub_cache.ts'
export { openNpy } from './files/npy.ts'
export { openParquet } from './files/parquet.ts'
export { arrayBlocks, type ColumnChoice, type StoredArray, type Table } from './files/table.ts'
export * from './index.ts'
export { type FileProblem, type ProblemFiles, readProblem } from './train/problem_files.ts'
