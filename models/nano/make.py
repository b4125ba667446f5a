"""Makes the embedded model, stage by stage; see CARD.md.

    python make.py --data DIR [--work .cache] [--stage all|tokenizer|backbone|heads|rows] [--steps N]

Made with torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0, numpy 2.4.6 on Python 3.11.
DIR holds vader-multirater, emobank, fed-dialogue and hh-rlhf-test. The same seed and machine class give the same weights.
"""

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer

import data
from backbone import prepare, train_backbone
from vocabulary import build_tokenizer

HERE = Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--work', type=Path, default=HERE / '.cache', help='checkpoints and logs')
    parser.add_argument('--out', type=Path, default=HERE, help='the model directory')
    parser.add_argument('--stage', default='all', choices=['all', 'tokenizer', 'backbone', 'heads', 'rows'])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--steps', type=int, default=1500)
    parser.add_argument('--tokens', type=int, default=2560, help='padded tokens of a batch of either kind')
    parser.add_argument('--rate', type=float, default=1.5e-3, help='highest learning rate')
    return parser.parse_args()


def main():
    options = arguments()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    rows, pairs, dropped = data.read_all(options.data)
    print(f'{len(rows)} rated rows, {len(pairs)} pairs ({dropped} left out: speakers do not alternate)')
    wanted = ['tokenizer', 'backbone', 'heads', 'rows'] if options.stage == 'all' else [options.stage]
    if 'tokenizer' in wanted:
        build_tokenizer(rows, pairs, options.out)
    tokenizer = Tokenizer.from_file(str(options.out / 'tokenizer.json'))
    if 'backbone' in wanted:
        rated, compared = prepare(tokenizer, rows, pairs, 'backbone')
        check = prepare(tokenizer, [r for r in rows if data.is_validation(r)], [p for p in pairs if data.is_validation(p)], 'heads')
        print(f'{len(rated)} rows, {sum(len(i) for i, _ in rated)} tokens; '
              f'{len(compared)} pairs, {sum(len(a) + len(b) for a, b in compared)} tokens')
        train_backbone(tokenizer, rated, compared, check, options)


if __name__ == '__main__':
    main()
