// The public names in Node: everything of index.ts, and files on disk.
export { openDirectory, openFile, writeFileAtomic } from './files/disk.ts'
export * from './index.ts'
