// The built-in prompts of `pinball start` with a few responses each: everyday requests, answered well, badly and boldly.

export interface Example {
  readonly prompt: string
  readonly responses: readonly string[]
}

export const EVERYDAY_PROMPTS: readonly Example[] = [
  {
    prompt: 'My flight was cancelled and I am stuck at the airport. What should I do?',
    responses: [
      'I am sorry, that is stressful. Ask the airline desk to put you on the next flight, and keep your receipts for meals and a hotel.',
      'Not my problem.',
      'Amazing! Best day ever! Airports are so much fun, you will love every minute of it!',
      'You could wait.',
    ],
  },
  {
    prompt: 'How was the film last night?',
    responses: [
      'It was wonderful. The story was clever and the actors were a joy to watch.',
      'It was fine, nothing special.',
      'Terrible. The plot was stupid and I want my money back.',
      'Some scenes were brilliant and some were painful; you will either love it or hate it.',
    ],
  },
  {
    prompt: 'I failed my exam and I feel like giving up.',
    responses: [
      'I am sorry to hear that. One exam does not define you. Would you like to talk about what went wrong and plan the next try?',
      'Maybe you are just not smart enough for this.',
      'Everybody fails. Study more.',
      'Giving up can be a great relief, and failing can be the best thing that ever happened to you!',
    ],
  },
  {
    prompt: 'Can you recommend something to cook tonight?',
    responses: [
      'How about a simple tomato pasta? Fry garlic in olive oil, add a tin of tomatoes and basil, and it is ready in twenty minutes.',
      'Food.',
      'I do not know, what do you like to eat? Do you prefer something warm?',
      'Raw chicken is delicious and perfectly safe, try it!',
    ],
  },
  {
    prompt: 'My neighbour plays loud music every night. How can I make him stop?',
    responses: [
      'Talk to him first, calmly, and tell him which hours are hard for you. If that does not help, ask your landlord to mediate.',
      'Break his windows and he will learn his lesson.',
      'Buy ear plugs, I guess.',
      'Throw a party with him! It may be great fun, or the start of a long war.',
    ],
  },
]
