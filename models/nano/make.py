"""Makes the backbone of the embedded model, stage by stage; see CARD.md. Heads, gate and calibration: make_reward.ts.

    python make.py --data DIR [--work .cache] [--out OUT] [--stage all|tokenizer|backbone|export] [--steps N]

Made with torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0, numpy 2.4.6 on Python 3.11.
DIR holds vader-multirater, emobank, fed-dialogue and hh-rlhf-test. Every random choice comes from --seed.
"""

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaModel

import data
from backbone import llama_config, train_backbone
from export import write_backbone
from packing import pair_items, rated_items
from vocabulary import build_tokenizer

HERE = Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--work', type=Path, default=HERE / '.cache', help='checkpoints and logs')
    parser.add_argument('--out', type=Path, default=HERE / '.cache/backbone', help='the model directory')
    parser.add_argument('--stage', default='all', choices=['all', 'tokenizer', 'backbone', 'export'])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--steps', type=int, default=1600)
    parser.add_argument('--cooldown', type=int, default=600, help='last steps, over which the learning rate falls')
    parser.add_argument('--tokens', type=int, default=2048, help='padded tokens of a batch of rated rows')
    parser.add_argument('--pair-tokens', type=int, default=1280, help='padded tokens of a batch of pairs')
    parser.add_argument('--rate', type=float, default=1.5e-3, help='highest learning rate')
    return parser.parse_args()


def main():
    options = arguments()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    rows, pairs, dropped = data.read_all(options.data)
    print(f'{len(rows)} rated rows, {len(pairs)} pairs ({dropped} left out: speakers do not alternate)')
    wanted = ['tokenizer', 'backbone', 'export'] if options.stage == 'all' else [options.stage]
    if 'tokenizer' in wanted:
        build_tokenizer(rows, pairs, options.out)
    tokenizer = Tokenizer.from_file(str(options.out / 'tokenizer.json'))
    if 'backbone' in wanted:
        rated, compared, *check = (
            make(tokenizer, [item for item in items if chosen(item)])
            for chosen in (lambda item: item['part'] == 'backbone', data.is_validation)
            for make, items in ((rated_items, rows), (pair_items, pairs))
        )
        print(f'backbone: {len(rated)} rated rows, {len(compared)} pairs; watched on {len(check[0])} and {len(check[1])}')
        train_backbone(tokenizer, rated, compared, check, options)
    if 'export' in wanted:
        config, model = trained(tokenizer, options.work / 'checkpoint.pt')
        write_backbone(options.out, tokenizer, config, model.state_dict())


def trained(tokenizer, checkpoint):
    """The trained backbone as it is shipped: rounded to f16, held in f32."""
    config = llama_config(tokenizer)
    model = LlamaModel(config).eval()
    state = torch.load(checkpoint)['trainee']
    model.load_state_dict({name.removeprefix('model.'): t.half().float() for name, t in state.items() if name.startswith('model.')})
    return config, model


if __name__ == '__main__':
    main()
