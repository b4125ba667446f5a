// What training gives as a checkpoint without a backbone, in the layout of the published class that has such heads.
import type { Checkpoint, GateWeights } from '../reward/checkpoint.ts'
import type { HeadsFile } from '../reward/heads_file.ts'
import { parseManifest } from '../reward/manifest.ts'

// Point estimates are one level.
const POINT = [0.5]

/** Quantile heads with their gate in the layout of QRM, point heads in that of ArmoRM. */
export function gateCheckpoint(heads: HeadsFile, gate: GateWeights): Checkpoint {
  const { attributes, weight, bias, transform, fitted } = heads
  return {
    layout: heads.levels === null ? 'armorm' : 'qrm',
    config: { model_type: 'llama' },
    manifest: { ...parseManifest({}, 'pinball.json'), attributes, levels: heads.levels ?? POINT },
    regression: { weight, bias },
    transform,
    gate,
    calibration: null,
    ...(fitted && { fitted }),
  }
}

/** A Bradley-Terry head [D] in the layout of LlamaForSequenceClassification. */
export function scoreCheckpoint(weight: Float32Array): Checkpoint {
  return {
    layout: 'classifier',
    config: { model_type: 'llama' },
    manifest: { ...parseManifest({}, 'pinball.json'), attributes: ['reward'], levels: POINT },
    regression: { weight, bias: null },
    transform: null,
    gate: null,
    calibration: null,
  }
}
