// The built-in prompts of `pinball start`: reviews in favour, against, lukewarm and torn, which the embedded model can tell apart.

export interface Example {
  readonly prompt: string
  readonly responses: readonly string[]
}

export const REVIEWS: readonly Example[] = [
  {
    prompt: 'How was the film?',
    responses: [
      'A great, funny film with a lovely cast.',
      'It was fine.',
      'The acting was brilliant, but the story was awful.',
      'Terrible. The plot was stupid and the jokes were bad.',
    ],
  },
  {
    prompt: 'What do you think of the phone?',
    responses: [
      'Great phone, the screen is beautiful and the battery is excellent.',
      'It is a phone.',
      'The camera is amazing, but the battery is terrible.',
      'It is a piece of junk, it broke after a week and the support was horrible.',
    ],
  },
  {
    prompt: 'How was the hotel?',
    responses: [
      'A beautiful place with friendly people, we loved it.',
      'It was okay, nothing special.',
      'The people were friendly and kind, but it was expensive.',
      'A bad, ugly place and the people were horrible.',
    ],
  },
]
