// The public names that work in every runtime, one by one. Node adds files and folders: node.ts.
export { ATTRIBUTES } from './data/attributes.ts'
export type { AttributeSet, Dataset, RankedRow, RankedSet, RatedRow } from './data/dataset.ts'
export { joinRatings } from './data/long_ratings.ts'
export { attributeRows, type DataFile, type DataInput, type RowReport, rankedRows, startReport } from './data/rows.ts'
export { DATASETS, findDatasets } from './data/table.ts'
export type { CallTimes, Profiler, Statistics } from './device/backend.ts'
export type { Device, TensorOptions } from './device/device.ts'
export { DEVICE_KINDS, type DeviceKind, type OpenOptions, openDevice } from './device/open.ts'
export type { Step } from './device/step.ts'
export type { DType, Tensor, TensorData, ViewOptions } from './device/tensor.ts'
export { type CalibrationResult, calibration, constantQuantiles, type RatedValues } from './evaluate/calibration.ts'
export { type PairedDifference, pairedBootstrap, wilson } from './evaluate/intervals.ts'
export { leftTail, type MeanDifference, type ScoredChoice, type TailMeasure } from './evaluate/left_tail.ts'
export {
  OWN_MODEL_DEFAULTS,
  type OwnModelOptions,
  type OwnModelReport,
  type OwnModelSettings,
  trainOwnModel,
} from './evaluate/own_model.ts'
export {
  comparePairs,
  evaluatePairs,
  measurePairs,
  type PairEvaluation,
  type QuestionsResult,
  type RewardBenchResult,
} from './evaluate/pair_results.ts'
export {
  type QuestionOptions,
  type Scored,
  type Scores,
  scorePairFeatures,
  scoreQuestions,
} from './evaluate/pair_scores.ts'
export { type Accuracy, type PairAccuracy, pairAccuracy } from './evaluate/pairs.ts'
export { type PairSuite, type Question, readQuestions } from './evaluate/questions.ts'
export {
  type CalibrationEvaluation,
  evaluateCalibration,
  quantilesOfFeatures,
  quantilesOfRows,
  type RatedQuantiles,
  type RatedRows,
  ratingsByAttribute,
  readRatedRows,
} from './evaluate/rated_quantiles.ts'
export { type RewardBench, rewardBench, type Section } from './evaluate/reward_bench.ts'
export { type RewardBench2, rewardBench2, type ScoredItem } from './evaluate/reward_bench_2.ts'
export { EMBEDDED, type EmbeddedOptions, openEmbedded } from './files/embedded.ts'
export {
  type HttpOptions,
  type HttpSourceOptions,
  httpFiles,
  httpSource,
  Refusal,
  UnreachableError,
} from './files/http.ts'
export { type FileRecord, type RecordOptions, readRecords, recordsOf } from './files/records.ts'
export { encodeSafetensors, openSafetensors, readTensorF32, type TensorInfo } from './files/safetensors.ts'
export { blobFiles, blobSource, type ModelFiles, memoryFiles, memorySource, type Source } from './files/source.ts'
export { memoryStore, memoryTree, type Store, type StoreTree } from './files/store.ts'
export { openUrl, type UrlCache, type UrlOptions, type UrlProgress } from './files/url.ts'
export { type RankedTexts, type RankOptions, type RewardTokens, rankTexts } from './generate/best_of.ts'
export type { CacheStorage } from './generate/cache.ts'
export {
  type CausalModel,
  type CausalModelOptions,
  type GenerateOptions,
  loadCausalModel,
} from './generate/causal_model.ts'
export {
  type FinishReason,
  GENERATION_DEFAULTS,
  type GenerationSettings,
  type SamplingSettings,
} from './generate/continuation.ts'
export type { PromptRow } from './generate/prompt_rows.ts'
export type { GeneratedPiece, GeneratedText } from './generate/texts.ts'
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
export { compareOutputs } from './llama/merge_compare.ts'
export { groupPrefixes, type PrefixGroup } from './llama/prefix.ts'
export { figure3Files } from './report/figure3.ts'
export { type Assembled, assemble } from './reward/assemble.ts'
export { type CalibrateOptions, calibrate, readUncalibrated } from './reward/calibrate.ts'
export { type Checkpoint, readCheckpoint } from './reward/checkpoint.ts'
export {
  CALIBRATION_FILE,
  type CalibratedAttribute,
  type Calibration,
  conformalOffset,
  encodeCalibration,
} from './reward/conformal.ts'
export { type Debiased, type DebiasedHeads, type DebiasOptions, debias, debiasHeads } from './reward/debias.ts'
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
export { type FeatureFileOptions, type MadeFeatures, makeFeatures } from './reward/feature_files/make.ts'
export { type FeatureManifest, manifestName } from './reward/feature_files/manifest.ts'
export { type FeatureRows, type RowChoice, readFeatureRows } from './reward/feature_files/rows.ts'
export { type Shard, shardName, shardOf } from './reward/feature_files/shards.ts'
export { type FeatureModel, type Features, loadFeatureModel } from './reward/features.ts'
export { type HeadOptions, type HeadScore, type Heads, loadHeads } from './reward/heads.ts'
export { headsCheckpoint, headsFiles, writeHeads } from './reward/heads_directory.ts'
export { encodeHeads, type HeadsFile, type HeadsToWrite, readHeadsFile } from './reward/heads_file.ts'
export { loadRewardModel, type RewardModel, type Score, type ScoreOptions } from './reward/model.ts'
export { openPairs, type PairFile } from './reward/pair_file.ts'
export { openRatings, type RatingFile } from './reward/rating_file.ts'
export { RewardDistribution } from './reward/reward_distribution.ts'
export { cvar, entropic, meanVariance, utility } from './reward/risk.ts'
export { type ReadRow, readRow } from './reward/row_forms.ts'
export type { Row } from './reward/rows.ts'
export { parseScoreKind, pointScore, type ScoreKind } from './reward/scoring.ts'
export { type Part, parseParts, splitRecords } from './reward/split.ts'
export { stateRows } from './reward/state_rows.ts'
export { UNITS, type Unit, unitWeights } from './reward/unit.ts'
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
export type { AdapterProgress, AdapterSettings, AdapterTraining, KeepOptions } from './train/adapter_training.ts'
export { type FittedHeads, fitHeads, type HeadsOptions, type HeadsProgress } from './train/heads.ts'
export type { AttributeFit } from './train/heads_keeper.ts'
export {
  type AttributeRidge,
  fitRidge,
  type RidgeFit,
  type RidgeOptions,
} from './train/multi_attribute.ts'
export { packBestFit } from './train/packing.ts'
export type { EpochResult, PairEntry } from './train/pair_log.ts'
export type { PairSettings } from './train/pair_task.ts'
export { encodePreferenceRow, encodePreferenceRows, type PreferenceRow } from './train/preference_rows.ts'
export { makeProblem, type Problem, type Ratings, ratingsProblem } from './train/problem.ts'
export {
  type QuantileResult,
  type QuantileSettings,
  type TunedQuantiles,
  trainQuantileModel,
} from './train/quantile_model.ts'
export { encodeRatedExamples, type RatedExample, type RatedExamples } from './train/rated_examples.ts'
export {
  type GateOptions,
  type Trained,
  type TrainingResult,
  type TrainOptions,
  type TrainProgress,
  trainBradleyTerry,
  trainGate,
} from './train/recipes.ts'
export { type RewardResult, type RewardSettings, type TunedReward, trainRewardModel } from './train/reward_model.ts'
export type { DrawCompletions, RolloutProgress } from './train/rloo/collect.ts'
export type { Generation } from './train/rloo/generations.ts'
export { type HttpRewardOptions, httpReward } from './train/rloo/http_reward.ts'
export type { RlooEntry } from './train/rloo/log.ts'
export { type ModelRewardOptions, modelReward, parseRisk } from './train/rloo/model_reward.ts'
export { encodeRlooPrompt, encodeRlooPrompts, type RlooPrompt, type RlooPrompts } from './train/rloo/prompts.ts'
export {
  functionReward,
  type RewardContext,
  type RewardFunction,
  type RewardRow,
  type RewardSource,
  type Rewards,
} from './train/rloo/rewards.ts'
export { type RlooOptions, type RlooResult, type TunedRloo, trainRloo } from './train/rloo/rloo.ts'
export {
  RLOO_DEFAULTS,
  RLOO_PRESETS,
  type RlooPreset,
  type RlooSettings,
  type Truncated,
} from './train/rloo/settings.ts'
export { openTextRules, type TextRules } from './train/row_text.ts'
export { holdOut, type SftResult, type SftSettings, type Tuned, trainSft } from './train/sft.ts'
export {
  encodeSftRow,
  encodeSftRows,
  type SftLoss,
  type SftRow,
  type SftRows,
  type SftRules,
} from './train/sft_rows.ts'
export type { SftEntry, SftEvaluation } from './train/sft_task.ts'
export type { SaveEvery } from './train/training_folder.ts'
export {
  type Figure3,
  type Figure3Options,
  type Figure3Progress,
  type Figure3Stores,
  reproduceFigure3,
  writeFigure3,
} from './world/figure3.ts'
export { FIGURE3_DEFAULTS, type Figure3Settings, type PolicyName } from './world/settings.ts'
