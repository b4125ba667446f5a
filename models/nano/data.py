"""Reads the openly licensed sets, splits them by item and renders them as chats.

Every item goes to one of three parts by a hash of its text alone, never of its ratings:
  heldout   20 %   seen by nothing that is trained: not by the tokenizer, the backbone, the heads or the gate
  heads     30 %   its text may be read by the backbone, its ratings only by the heads (pairs: by heads and gate)
  backbone  50 %   its text and ratings shape the backbone through throw-away heads; nothing else is fitted on it
The heads therefore meet features of items whose ratings the backbone never saw, as they will in use.
A tenth of the heads part is the validation slice, on which training is watched and choices are compared.
"""

import gzip
import hashlib
import json
import re
from pathlib import Path

LEVELS = [k / 20 for k in range(1, 20)]
SPECIALS = [
    '<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>',
    '<|finetune_right_pad_id|>',
]
BOS, END, HEADER_START, HEADER_END, EOT, PAD = SPECIALS
CHAT_TEMPLATE = (
    '{{ bos_token }}{% for message in messages %}'
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    '{% endfor %}'
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

# attribute: (lowest raw rating, number of levels); a raw rating r becomes (r - lowest + 0.5) / levels
SCALES = {
    'sentiment': (-4, 9),
    'valence': (1, 5), 'arousal': (1, 5), 'dominance': (1, 5),
    'interesting': (0, 3), 'engaging': (0, 3), 'specific': (0, 3), 'relevant': (0, 3), 'overall': (0, 5),
    'helpful': (0, 2), 'harmless': (0, 2),
}

PROMPTS = {
    'movie': ['Write a sentence from a movie review.', 'Say something about a film you saw.',
              'Give me one line of a film review.'],
    'amazon': ['Write a sentence from a product review.', 'Say something about a product you bought.',
               'Give me one line of a customer review.'],
    'nyt': ['Write a sentence from a newspaper editorial.', 'Say something about the news.',
            'Give me one line of an opinion column.'],
    'emobank': ['Write a sentence.', 'Say something.', 'Give me one line of a text.'],
    'lexicon': ['Name a word that shows how people feel.', 'Say one word.'],
}


def fraction(text):
    """A number in [0, 1) that depends on the letters and digits of a text and nothing else."""
    key = re.sub(r'[^\w]+', ' ', text.lower()).strip() or text
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], 'big') / 2**64


def part_of(key):
    """heldout, heads or backbone for an item; see the top of the file."""
    f = fraction(key)
    return 'heldout' if f < 0.2 else 'heads' if f < 0.5 else 'backbone'


def is_validation(row):
    """The slice of the heads part on which training is watched and choices are compared."""
    return row['part'] == 'heads' and fraction(row['key']) < 0.23


def scaled(attribute, raw):
    low, count = SCALES[attribute]
    return round((raw - low + 0.5) / count, 6)


def rows_of(folder, name):
    with gzip.open(Path(folder) / name, 'rt', encoding='utf-8') as lines:
        return [json.loads(line) for line in lines]


def row(kind, key, messages, ratings):
    return {'set': kind, 'key': key, 'part': part_of(key), 'messages': messages, 'ratings': ratings}


def sentence(kind, text, ratings):
    prompts = PROMPTS[kind]
    prompt = prompts[int(fraction('prompt of ' + text) * len(prompts))]
    # A lone word is said after other words, as it stands in a sentence: tokens inside a text begin with a blank.
    answer = f'The word is {text}' if kind == 'lexicon' else text
    return row(kind, text, [said('user', prompt), said('assistant', answer)], ratings)


def said(role, content):
    return {'role': role, 'content': content.strip()}


def vader(folder):
    """Sentences with 15 to 99 raters each; the lexicon's words (10 raters) serve the backbone only."""
    out = []
    for kind, name in (('movie', 'movie_reviews'), ('amazon', 'amazon_reviews'), ('nyt', 'nyt_editorials')):
        for r in rows_of(folder, f'vader-multirater/{name}.jsonl.gz'):
            if r['text'].strip():
                out.append(sentence(kind, r['text'], {'sentiment': [scaled('sentiment', x) for x in r['ratings']]}))
    for r in rows_of(folder, 'vader-multirater/lexicon.jsonl.gz'):
        item = sentence('lexicon', r['token'], {'sentiment': [scaled('sentiment', x) for x in r['ratings']]})
        # Not an attribute of its own: what is not held out goes to the backbone.
        out.append({**item, 'part': 'heldout' if item['part'] == 'heldout' else 'backbone'})
    return out


def emobank(folder):
    out = []
    for r in rows_of(folder, 'emobank/reader_ratings.jsonl.gz'):
        names = ('valence', 'arousal', 'dominance')
        ratings = {n: [scaled(n, v[i]) for v in r['vad']] for i, n in enumerate(names)}
        if r['text'].strip():
            out.append(sentence('emobank', r['text'], ratings))
    return out


def dialogue(text):
    """'User: ..' and 'System: ..' lines as messages; neighbours of one speaker are joined."""
    messages = []
    for line in text.strip().split('\n'):
        speaker, _, words = line.partition(':')
        if speaker not in ('User', 'System'):
            messages[-1]['content'] += '\n' + line
            continue
        role = 'user' if speaker == 'User' else 'assistant'
        if messages and messages[-1]['role'] == role:
            messages[-1]['content'] += '\n' + words.strip()
        else:
            messages.append(said(role, words))
    return messages


def fed(folder):
    """System turns with five raters, split by dialogue: turns of one dialogue share their context."""
    rows = rows_of(folder, 'fed-dialogue/fed_data.jsonl.gz')
    dialogues = [r['context'] for r in rows if 'response' not in r]
    out = []
    for r in rows:
        if 'response' not in r:
            continue
        text = r['context'] + '\n' + r['response']
        whole = max(dialogues, key=lambda d: common_prefix(d, text))
        ratings = {}
        for name, values in r['annotations'].items():
            if name.lower() in SCALES:
                # "N/A (...)" is written in place of a number by a few raters.
                ratings[name.lower()] = [scaled(name.lower(), v) for v in values if isinstance(v, (int, float))]
        item = row('fed', whole, dialogue(text), ratings)
        # 375 turns are too few to share: all that is not held out is for the heads.
        out.append({**item, 'part': 'heldout' if item['part'] == 'heldout' else 'heads'})
    return out


def common_prefix(a, b):
    n = 0
    for x, y in zip(a, b):
        if x != y:
            break
        n += 1
    return n


def conversation(text):
    """HH-RLHF's '\\n\\nHuman: .. \\n\\nAssistant: ..' as messages, or None where speakers do not alternate."""
    pieces = re.split(r'\n\n(Human|Assistant):', text)[1:]
    messages = [said('user' if s == 'Human' else 'assistant', t) for s, t in zip(pieces[::2], pieces[1::2])]
    fine = all(m['role'] == ('user', 'assistant')[i % 2] for i, m in enumerate(messages))
    return messages if fine and len(messages) % 2 == 0 and all(m['content'] for m in messages) else None


def hh(folder):
    """Pairs {set, key, part, prompt, chosen, rejected} whose sides differ in the last message only; and the number left out."""
    out, dropped = [], 0
    for kind, name in (('helpful', 'helpful-base'), ('helpful', 'helpful-rejection-sampled'), ('harmless', 'harmless-base')):
        for r in rows_of(folder, f'hh-rlhf-test/{name}.test.jsonl.gz'):
            chosen, rejected = conversation(r['chosen']), conversation(r['rejected'])
            if not chosen or not rejected or chosen[:-1] != rejected[:-1] or chosen[-1] == rejected[-1]:
                dropped += 1
                continue
            # The first human message is the key, so no dialogue stands on both sides of the split.
            key = chosen[0]['content']
            out.append({'set': kind, 'source': name, 'key': key, 'part': part_of(key), 'prompt': chosen[:-1],
                        'chosen': chosen[-1], 'rejected': rejected[-1]})
    return out, dropped


def read_all(folder):
    """All rated rows and all pairs of the data folder."""
    pairs, dropped = hh(folder)
    return vader(folder) + emobank(folder) + fed(folder), pairs, dropped


def render(messages):
    """The text that the chat template makes of messages, without a generation prompt."""
    return BOS + ''.join(f'{HEADER_START}{m["role"]}{HEADER_END}\n\n{m["content"].strip()}{EOT}' for m in messages)
