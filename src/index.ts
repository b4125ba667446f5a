// The public names that work in every runtime, one by one. Node adds files and folders: node.ts.
export { ATTRIBUTES } from './data/attributes.ts'
export type { AttributeSet, Dataset, RankedRow, RankedSet, RatedRow } from './data/dataset.ts'
export { attributeRows, type DataFile, type DataInput, type RowReport, rankedRows, startReport } from './data/rows.ts'
export { DATASETS, findDatasets } from './data/table.ts'
export type { Device, TensorOptions } from './device/device.ts'
export { DEVICE_KINDS, type DeviceKind, type OpenOptions, openDevice } from './device/open.ts'
export type { DType, Tensor, TensorData } from './device/tensor.ts'
export { type CalibrationResult, calibration, constantQuantiles, type RatedValues } from './evaluate/calibration.ts'
export { type PairedDifference, pairedBootstrap, wilson } from './evaluate/intervals.ts'
export { type Accuracy, type PairAccuracy, pairAccuracy } from './evaluate/pairs.ts'
export { type RewardBench, rewardBench, type Section } from './evaluate/reward_bench.ts'
export { type RewardBench2, rewardBench2, type ScoredItem } from './evaluate/reward_bench_2.ts'
export { type HttpOptions, type HttpSourceOptions, httpSource } from './files/http.ts'
export { type FileRecord, type RecordOptions, readRecords } from './files/records.ts'
export { encodeSafetensors, openSafetensors, readTensorF32, type TensorInfo } from './files/safetensors.ts'
export { blobSource, type ModelFiles, memoryFiles, memorySource, type Source } from './files/source.ts'
export { memoryStore, type Store } from './files/store.ts'
export { type AdapterConfig, type AdapterTask, type NewAdapter, newAdapterConfig } from './llama/adapter_config.ts'
export { type Adapter, encodeAdapter, type LoraWeights, readAdapter } from './llama/adapter_files.ts'
export { unpad } from './llama/batch.ts'
export type { LlamaConfig } from './llama/config.ts'
export {
  type ChosenStates,
  type HiddenStates,
  type Llama,
  type LoadOptions,
  loadLlama,
  type StatesOptions,
} from './llama/forward.ts'
export { type MergeOptions, type MergeReport, mergeAdapter } from './llama/merge.ts'
export { groupPrefixes, type PrefixGroup } from './llama/prefix.ts'
export { type Checkpoint, readCheckpoint } from './reward/checkpoint.ts'
export { conformalOffset } from './reward/conformal.ts'
export { debias } from './reward/debias.ts'
export {
  cdf,
  density,
  evenLevels,
  expectation,
  type Mixture,
  mix,
  probabilityBelow,
  quantile,
  rearrange,
  tailMean,
  variance,
} from './reward/distribution.ts'
export { encodeCheckpoint } from './reward/encode.ts'
export { type Features, loadFeatureModel } from './reward/features.ts'
export { type HeadOptions, type HeadScore, type Heads, loadHeads } from './reward/heads.ts'
export { type HeadsFile, readHeadsFile } from './reward/heads_file.ts'
export { loadRewardModel, type RewardModel, type Score, type ScoreOptions } from './reward/model.ts'
export { openPairs, type PairFile } from './reward/pair_file.ts'
export { openRatings, type RatingFile } from './reward/rating_file.ts'
export { cvar, entropic, meanVariance, utility } from './reward/risk.ts'
export type { Row } from './reward/rows.ts'
export { parseScoreKind, pointScore, type ScoreKind } from './reward/scoring.ts'
export { type AlphaOptions, type AlphaProgress, type AlphaStep, type ChosenAlpha, chooseAlpha } from './solver/alpha.ts'
export { type Certificate, type Claim, certify } from './solver/certificate.ts'
export {
  type FeatureBlocks,
  type Features as FeatureMatrix,
  type FinishedLevel,
  type FitOptions,
  fitQuantiles,
  type Labels,
  type LevelFit,
  openSolver,
  type Progress,
  type QuantileFit,
  type Solver,
  type Start,
} from './solver/fit.ts'
export { type BosPolicy, type Message, renderChat } from './text/chat.ts'
export { loadTokenizer, type Tokenizer } from './text/tokenizer.ts'
export { startAdapter } from './train/adapter_start.ts'
export {
  type AttributeRidge,
  fitRidge,
  type Ratings,
  type RidgeFit,
  type RidgeOptions,
} from './train/multi_attribute.ts'
export { packBestFit } from './train/packing.ts'
export type { PairSettings } from './train/pair_training.ts'
export { encodePreferenceRow, type PreferenceRow } from './train/preference_rows.ts'
export { type Trained, type TrainHooks, trainBradleyTerry, trainGate } from './train/recipes.ts'
export type { TextRules } from './train/row_text.ts'
export { encodeSftRow, type SftLoss, type SftRow, type SftRules } from './train/sft_rows.ts'
