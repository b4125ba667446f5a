"""Trains the byte-level BPE tokenizer of the embedded model and writes it in Hugging Face's format."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from data import BOS, CHAT_TEMPLATE, EOT, PAD, SPECIALS

VOCABULARY = 4096
# Llama 3 cuts text by the same rules: contractions, letters with one leading mark, up to three digits, marks, line ends, blanks.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)


def texts(rows, pairs):
    """What the vocabulary is learnt from: every message of the items that are not held out."""
    for messages in [r['messages'] for r in rows] + [p['prompt'] + [p['chosen'], p['rejected']] for p in pairs]:
        for message in messages:
            yield message['role']
            yield '\n\n' + message['content']


def build_tokenizer(rows, pairs, folder):
    """Writes tokenizer.json and tokenizer_config.json to folder (a Path) and returns the tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), behavior='isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    seen = [r for r in rows if r['part'] != 'heldout'], [p for p in pairs if p['part'] != 'heldout']
    tokenizer.train_from_iterator(texts(*seen), trainer)
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f'vocabulary: must hold {VOCABULARY} tokens, holds {tokenizer.get_vocab_size()}; give more text')
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f'{BOS} $A', pair=f'{BOS} $A {BOS}:1 $B:1', special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    tokenizer.save(str(folder / 'tokenizer.json'))
    config = {
        'bos_token': BOS, 'eos_token': EOT, 'pad_token': PAD, 'chat_template': CHAT_TEMPLATE,
        'clean_up_tokenization_spaces': False, 'model_max_length': 1024,
        'model_input_names': ['input_ids', 'attention_mask'], 'tokenizer_class': 'PreTrainedTokenizerFast',
    }
    (folder / 'tokenizer_config.json').write_text(json.dumps(config, indent=2) + '\n')
    return tokenizer


def gate_pattern(tokenizer):
    """The ids of '<|eot_id|><|start_header_id|>assistant<|end_header_id|>\\n\\n', the last of which starts the answer."""
    return tokenizer.encode('<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n', add_special_tokens=False).ids
