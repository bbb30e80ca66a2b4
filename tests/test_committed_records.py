"The committed results: each follows from its predictions, and none names a place on the machine it was made on."
import json, re
from pathlib import Path
import numpy as np, pandas as pd, pytest
from imgstudy.report.wording import signed
from imgstudy.stats.pairs import paired_gain, with_partners
from imgstudy.records.record import read_record, verify_record
from imgstudy.runs import run_id
from imgstudy.training.schedule import total_epochs

top = Path(__file__).parent.parent
folders = sorted(p.parent for p in (top/'report/records').glob('*/record.json'))


@pytest.mark.parametrize('folder', folders, ids=lambda p: p.name)
def test_record_holds(folder):
    record = read_record(folder)
    verify_record(record)
    assert folder.name == run_id(record.run), 'the folder is named after everything in the run'
    planned = total_epochs(record.run.recipe)
    assert len(record.history) == planned or record.run.recipe.patience and len(record.history) < planned
    assert not re.search(r'"(/|[A-Z]:\\|~)', (folder/'record.json').read_text())


def test_records_are_kept_small():
    "What `imgstudy collect` copies: predictions in brief, pictures, no weights, so that a clone is fetched quickly."
    for folder in folders:
        assert 'log_probs' not in read_record(folder).predictions, folder.name
        assert {p.suffix for p in folder.iterdir()} <= {'.json', '.csv', '.npz', '.webp'}, folder.name


benchmarks = Path(__file__).parent.parent/'report/records/benchmarks'
measured = sorted(benchmarks.glob('*.json'))


@pytest.mark.parametrize('file', measured, ids=lambda p: p.stem)
def test_benchmark_says_on_what_it_was_measured(file):
    said = json.loads(file.read_text())
    assert said['what'] in ('speed', 'growth', 'gpu') and all(said['environment'][k] for k in ('cpu', 'cores', 'threads'))
    assert said['environment']['commit'] or file.stem == 'gpu-NVIDIA-H200' # from an archive, before an archive named its commit
    assert not re.search(r'"(/|[A-Z]:\\|~)', file.read_text())


probed = {('stanford_dogs20', 224, None): '20 dog breeds', ('cats_vs_dogs', 160, 2000): 'Cats vs Dogs', ('cifar10', 160, 5000): 'CIFAR-10'}
called = dict(mobilenetv2_keras='MobileNetV2', efficientnet_lite0='EfficientNet-Lite0', resnet18_cntk='ResNet-18', resnet18_cntk_cut='ResNet-18 (cut)')


def test_docs_say_what_probes_reach():
    "Each mean in the second table of docs/transfer.md is that of the records: of the recipe with the most of them, and none is left out."
    found = {}
    for r in map(read_record, folders):
        if r.run.recipe.tune in ('probe', 'probe_then_all') and r.run.fold is None and (key := (r.run.dataset, r.run.size, r.run.subset)) in probed:
            found.setdefault((key, r.run.recipe.tune, r.run.model), {}).setdefault(r.run.recipe, []).append(r)
    text = (top/'docs/transfer.md').read_text(encoding='utf-8')
    lines = text.splitlines()
    for (key, tune, model), recipes in found.items():
        values = max(recipes.values(), key=len)
        cells = next(line for line in lines if line.startswith(f'| {probed[key]}') and 'probe' not in line and called[model] in line).split('|')
        said = cells[2 if tune == 'probe' else 3]
        mean = f"{100*np.mean([r.metrics['accuracy'] for r in values]):.1f} {called[model]}"
        assert len(values) >= 3 and mean in said
        if tune == 'probe': continue
        probes = max(found[key, 'probe', model].values(), key=len)
        gain = paired_gain(*with_partners(probes, values))  # of the split that both have
        d, low, high = (signed(100*v, 1).replace('-', '\u2212') for v in (gain.difference, gain.low, gain.high))
        change = f'{d} ({low} to {high})'
        assert f'{mean}, {change}' in said and gain.n_pairs == 3
    larger = {r.run.model: r for r in map(read_record, folders) if (r.run.dataset, r.run.size, r.run.split_seed) == ('cifar10', 224, 0)}
    values = [f"{100*larger[k].metrics['accuracy']:.1f}" for k in ('resnet18_cntk', 'resnet18_cntk_cut')]
    assert f'{values[0]} and {values[1]} % on one split' in ' '.join(text.split())


def speed_lines(file):
    "The rows of the table in docs/speed.md: median training images a second of epochs after the first, and how many times as fast as plain fastai."
    said = json.loads(file.read_text())
    rows = pd.DataFrame(said['rows'])
    later = rows[(rows.epoch > 1) & rows.seconds.notna()]
    for w in said['parameters']['work']:
        rate = w['train']/later[later.model == w['model']].groupby('peer').seconds.median()
        none = ', no augmentation' if said['parameters'].get('augment') == 'none' else ''
        yield (f"| {w['model']}, {w['size']} pixels, {w['train']:,} + {w['valid']:,} images{none} | "
               + ' | '.join(f'{rate[p]:,.0f}' if p in rate else '' for p in ('fastai', 'pytorch', 'timm_loader', 'hf_trainer', 'imgstudy'))
               + f" | {rate['imgstudy']/rate['fastai']:.1f} |")


@pytest.mark.parametrize('file', [f for f in measured if json.loads(f.read_text())['what'] == 'speed'], ids=lambda p: p.stem)
def test_docs_say_how_fast_it_was(file):
    for line in speed_lines(file): assert line in (top/'docs/speed.md').read_text(), line


def test_docs_say_that_accuracy_is_not_paid_for_it():
    "Validation accuracy at the end on the whole of CIFAR-10, mean over the turns with the least and the most."
    text = (top/'docs/speed.md').read_text()
    for kind in ('', '-no-augmentation'):
        rows = pd.DataFrame(json.loads((benchmarks/f'speed-whole-CIFAR-10-AMD-EPYC-2-cores-bf16{kind}.json').read_text())['rows'])
        for _, last in rows[(rows.epoch == rows.epoch.max()) & (rows.model == 'cnn3')].groupby('peer').accuracy:
            assert f'{last.mean():.3f} [{last.min():.3f}, {last.max():.3f}]' in text


def test_docs_say_what_the_first_epoch_takes_and_how_near_the_limit_is():
    said = {f.stem: json.loads(f.read_text()) for f in measured}
    text, later = (top/'docs/speed.md').read_text(), {}
    for kind in ('', '-bf16'):
        whole, short = said[f'speed-whole-CIFAR-10-AMD-EPYC-2-cores{kind}'], said[f'speed-AMD-EPYC-2-cores{kind}']
        first = pd.DataFrame(whole['rows']).query("epoch == 1 and model == 'lenet5'").groupby('peer').seconds.median()
        assert f"{first['imgstudy']:.0f} s for {first['fastai']:.0f}" in text
        later[kind] = pd.DataFrame(short['rows']).query('epoch > 1').groupby(['peer', 'model']).seconds.median()
    short = said['speed-AMD-EPYC-2-cores']
    share = {w['model']: short['flops'][w['model']]*(3*w['train'] + w['valid'])/later['']['imgstudy', w['model']]/short['limits']['matmul_gflops']/1e9
             for w in short['parameters']['work']}
    assert f"{100*share['cnn3']:.0f} % and {100*share['resnet18']:.0f} %" in text
    times = later['-bf16']['fastai']/later['-bf16']['imgstudy_fp32'] # what is left without bfloat16
    assert f"{times['lenet5']:.1f}, {times['cnn3']:.1f} and {times['resnet18']:.1f} times" in text


def gpu_lines(rows):
    "What docs/speed.md says of a GPU: the rows of its table, and the rates of other networks, of stacks and of streams. A row without a rate, as after an error, is left out."
    cell, rates = lambda v: f'{v:,.0f}' if v else '', {name: r['images_per_s'] for name, r in rows.items() if r.get('images_per_s')}
    for m in ('lenet5', 'cnn3'):
        if not (ours := rates.get(f'{m}, batches of 64')): continue
        peers = ' | '.join(cell(rates.get(f'{p}, {m}')) for p in ('fastai', 'fastai_fp16', 'pytorch', 'timm_loader', 'hf_trainer'))
        times = f"{ours/rates[f'fastai, {m}']:.1f}" if f'fastai, {m}' in rates else ''
        yield f"| {m} | {peers} | {cell(rows[f'{m}, batches of 64'].get('eager_images_per_s'))} | {cell(ours)} | {times} |"
    for name, rate in rates.items():
        r = rows[name]
        if r['group'] == 2 and name.split(',')[0] not in ('lenet5', 'cnn3') and 'standard' not in name: yield f"`{r['model']}` {rate:,.0f}"
        if r['group'] == 3: yield f"{r['members']} {r['model']} {rate:,.0f}" if 'members' in r else f"{r['streams']} {r['model']}, a stream each {rate:,.0f}"


def test_a_new_record_of_a_gpu_can_be_laid_beside_the_docs():
    "Streams, validation, tests, errors, peers for which there was no time: a made-up record."
    row = lambda group, name, **values: (name, dict(group=group, name=name, seconds=1., **values))
    rows = dict([row(1, 'matrix peak', tflops=dict(bf16=700.)), row(2, 'lenet5, batches of 64', model='lenet5', images_per_s=120_000, eager_images_per_s=13_000, captured=True, capture_difference=0.),
                 row(2, 'cnn3, batches of 64', error='OutOfMemoryError: full'), row(2, 'vit, batches of 64', model='vit', images_per_s=24_000), row(2, 'resnet9, validation', model='resnet9', valid_over_train=.2),
                 row(3, '16 lenet5 as one', model='lenet5', members=16, images_per_s=660_000), row(3, '8 vit, a stream each', model='vit', streams=8, images_per_s=73_000),
                 row(3, '8 cnn3, a stream each', error='RuntimeError: no'), row(4, 'fastai, lenet5', model='lenet5', images_per_s=4_000), row(4, 'pytorch, lenet5', model='lenet5', why='not installed'),
                 row(8, 'CUDA tests', passed=['test_a'], failed=[])])
    assert [*gpu_lines(rows)] == ['| lenet5 | 4,000 |  |  |  |  | 13,000 | 120,000 | 30.0 |', '`vit` 24,000', '16 lenet5 660,000', '8 vit, a stream each 73,000']
    assert [*gpu_lines({})] == []
    without = {k: v for k, v in rows.items() if k != 'fastai, lenet5'}
    assert next(gpu_lines(without)) == '| lenet5 |  |  |  |  |  | 13,000 | 120,000 |  |'


@pytest.mark.parametrize('file', [f for f in measured if json.loads(f.read_text())['what'] == 'gpu'], ids=lambda p: p.stem)
def test_docs_say_what_a_gpu_is_worth(file):
    rows, text = {r['name']: r for r in json.loads(file.read_text())['rows']}, (top/'docs/speed.md').read_text()
    for line in gpu_lines(rows): assert line in text, line
    assert all(r['capture_difference'] == 0 for r in rows.values() if r.get('captured'))
