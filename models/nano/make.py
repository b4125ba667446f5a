"""Makes the embedded model, stage by stage; see CARD.md.

    python make.py --data DIR [--work .cache] [--stage all|tokenizer|backbone|export|heads|rows|choices] [--steps N]

Made with torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0, numpy 2.4.6 on Python 3.11.
DIR holds vader-multirater, emobank, fed-dialogue and hh-rlhf-test. Every random choice comes from --seed.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import LlamaModel

import data
from backbone import llama_config, train_backbone
from export import replace, write_model
from gate import Gate
from heads import collect, fit_gate, fit_heads, pair_features, try_choices
from packing import LONGEST, pair_items, rated_items
from vocabulary import build_tokenizer

HERE = Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--work', type=Path, default=HERE / '.cache', help='checkpoints and logs')
    parser.add_argument('--out', type=Path, default=HERE, help='the model directory')
    parser.add_argument('--stage', default='all', choices=['all', 'tokenizer', 'backbone', 'export', 'heads', 'rows', 'choices'])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--steps', type=int, default=1600)
    parser.add_argument('--cooldown', type=int, default=600, help='last steps, over which the learning rate falls')
    parser.add_argument('--tokens', type=int, default=2048, help='padded tokens of a batch of rated rows')
    parser.add_argument('--pair-tokens', type=int, default=1280, help='padded tokens of a batch of pairs')
    parser.add_argument('--heads', type=Path, help='heads made by fit.ts, instead of fitting them here')
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
        rated, compared, *check = (
            make(tokenizer, [item for item in items if chosen(item)])
            for chosen in (lambda item: item['part'] == 'backbone', data.is_validation)
            for make, items in ((rated_items, rows), (pair_items, pairs))
        )
        print(f'backbone: {len(rated)} rated rows, {len(compared)} pairs; watched on {len(check[0])} and {len(check[1])}')
        train_backbone(tokenizer, rated, compared, check, options)
    if 'export' in wanted:
        config, model = trained(tokenizer, options.work / 'checkpoint.pt')
        empty = torch.zeros(len(data.ATTRIBUTES), len(data.LEVELS), config.hidden_size)
        write_model(options.out, tokenizer, config, model.state_dict(), empty, Gate(config.hidden_size, len(data.ATTRIBUTES)).eval())
    if 'heads' in wanted and options.heads:
        config, model = trained(tokenizer, options.work / 'checkpoint.pt')
        fitted = load_file(options.heads)
        heads = fitted['regression_layer.weight'].reshape(len(data.ATTRIBUTES), len(data.LEVELS), -1)
        kept = [pair for pair in pairs if pair['part'] == 'heads']
        both, prompt, fits = pair_features(model, tokenizer, kept, LONGEST)
        compared = {'rows': [p for p, f in zip(kept, fits) if f], 'both': both[fits], 'prompt': prompt[fits]}
        write_model(options.out, tokenizer, config, model.state_dict(), heads, fit_gate(heads.numpy(), compared, options.seed),
                    fitted['regression_layer.bias'])
    elif 'heads' in wanted or 'choices' in wanted:
        config, model = trained(tokenizer, options.work / 'checkpoint.pt')
        kept = ([i for i in items if i['part'] == 'heads'] for items in (rows, pairs))
        table, compared = collect(model, tokenizer, *kept, longest=LONGEST)
        if options.stage == 'choices':
            try_choices(table, compared, options.seed)
            return
        heads, _ = fit_heads(table)
        gate = fit_gate(heads, compared, options.seed)
        write_model(options.out, tokenizer, config, model.state_dict(), torch.from_numpy(heads), gate)
    if 'rows' in wanted:
        write_rows(options.work, rows, pairs)


def trained(tokenizer, checkpoint):
    """The trained backbone as it is shipped: rounded to f16, held in f32."""
    config = llama_config(tokenizer)
    model = LlamaModel(config).eval()
    state = torch.load(checkpoint)['trainee']
    model.load_state_dict({name.removeprefix('model.'): t.half().float() for name, t in state.items() if name.startswith('model.')})
    return config, model


def write_rows(folder, rows, pairs):
    """JSONL of every part for other fitters: `<part>.jsonl` with {set, messages, ratings: {attribute: one number a rater}},
    `<part>.pairs.jsonl` with {set, chosen: messages, rejected: messages}."""
    for part in ('heads', 'backbone', 'heldout'):
        rated = [{k: r[k] for k in ('set', 'messages', 'ratings')} for r in rows if r['part'] == part]
        compared = [{'set': p['set'], **{side: p['prompt'] + [p[side]] for side in ('chosen', 'rejected')}}
                    for p in pairs if p['part'] == part]
        for name, lines in ((f'{part}.jsonl', rated), (f'{part}.pairs.jsonl', compared)):
            text = ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in lines)
            replace(folder / name, lambda p: p.write_text(text, encoding='utf-8'))


if __name__ == '__main__':
    main()
