// Names of the published models' attributes: what a checkpoint of that size has, and what datasets rate.

/** The 19 attributes of the published models, in the order of their regression layer; the first five alone are HelpSteer's. */
export const ATTRIBUTES = [
  'helpsteer-helpfulness',
  'helpsteer-correctness',
  'helpsteer-coherence',
  'helpsteer-complexity',
  'helpsteer-verbosity',
  'ultrafeedback-overall_score',
  'ultrafeedback-instruction_following',
  'ultrafeedback-truthfulness',
  'ultrafeedback-honesty',
  'ultrafeedback-helpfulness',
  'beavertails-is_safe',
  'prometheus-score',
  'argilla-overall_quality',
  'argilla-judge_lm',
  'code-complexity',
  'code-style',
  'code-explanation',
  'code-instruction-following',
  'code-readability',
] as const
