"What a run trained, in words: a probe is called one wherever a recipe is shown, and ways to train keep names of their own."
import re
from types import SimpleNamespace
import matplotlib.pyplot as plt, pandas as pd, pytest
from imgstudy.photos import _how
from imgstudy.records.card import recipe_words, trained_words
from imgstudy.records.record import Record
from imgstudy.records.find import committed_records
from imgstudy.records.record import read_records
from imgstudy.report import general
from imgstudy.report.cards import card_facts, model_card
from imgstudy.report.compare import comparison_text, costs_table, runs_differ_table
from imgstudy.report.overview import plot_group_curves
from imgstudy.report.wording import reason_words
from imgstudy.runs import Recipe, Run, fields_of, make_run
from imgstudy.stats.configs import configs
from imgstudy.stats.published import run_differences
from imgstudy.stats.seeds import is_probe
from imgstudy.study.estimate import plan_table
from imgstudy.study.studies import study_runs

placeholder = re.compile(r'\b(epochs?|lr|rate|wd|decay|bs|batch|opt|adamw|one.cycle|schedule|seed)\b', re.I)
named = dict(probe='linear probe', probe_then_all='all layers from a linear probe', head='last layer only',
             gradual='layer by layer from the last', all='all layers')


@pytest.fixture(scope='module')
def every(): return [r for r in read_records(committed_records()) if r.outcome == 'finished']
@pytest.fixture(scope='module')
def probes(every): return [c for c in configs(every) if is_probe(c[0].run)]


def test_cards_of_probes_name_them_and_their_strength(probes):
    assert len(probes) > 10
    for config in probes:
        said, strengths = card_facts(config)['Training'], [r.info['probe']['strength'] for r in config]
        assert said.startswith('Linear probe: logistic regression, strength') and not placeholder.search(said), said
        for s in (min(strengths), max(strengths)): assert f'{s:g}' in said
        assert not re.search('AdamW|one_cycle|bs 64|1 epochs', model_card(config))


def test_the_table_of_costs_names_what_is_tuned(every, probes):
    table = general._configs_table(every)
    of = lambda words: table[table['trained with'].str.contains(words)]
    assert len(of('linear probe: logistic regression, strength')) == len(probes) == (table.epochs == 'none').sum()
    assert not any(map(placeholder.search, of('logistic regression')['trained with']))
    for tune in ('probe_then_all', 'head'): assert len(of(f', {named[tune]}')) == sum(c[0].run.recipe.tune == tune for c in configs(every))


@pytest.mark.parametrize('tune', ['probe_then_all', None, 'head'])
def test_a_comparison_with_a_probe_shows_no_placeholder(every, tune):
    a, b = next((a, b) for a in every for b in every if is_probe(a.run) and b.run.recipe.tune == tune
                and a.run.init == b.run.init and (a.run.dataset, a.run.model, a.run.size, a.run.split_seed, a.run.subset)
                == (b.run.dataset, b.run.model, b.run.size, b.run.split_seed, b.run.subset) and b.run.fold is None)
    for x, y, side in ((a, b, 'A'), (b, a, 'B')):
        table = runs_differ_table(x, y)
        assert table[side]['tune'] == f"linear probe: logistic regression, strength {a.info['probe']['strength']:g}"
        settings = ['lr', 'epochs', 'bs', 'opt', 'schedule', 'wd', 'seed'] # also where a placeholder equals the value
        assert {*table[side][settings]} == {'none'} and 'none' not in {*table['AB'.replace(side, '')][settings]}
        assert re.search(r'They differ in [^.]*\btuning\b', said := comparison_text(x, y))
        assert not placeholder.search(re.search('They differ in [^.]*', said)[0])
        assert costs_table(x, y)[side][['epochs', 'epoch kept']].tolist() == ['none', 'none']


@pytest.mark.parametrize('tune', named)
@pytest.mark.parametrize('source', ['imagenet', 'run:other', 'file:w.safetensors'])
def test_the_line_of_a_training_names_its_tune(tune, source):
    run = make_run(dataset='folder:photos', model='resnet18', init=source, tune=tune, size=64, augment='none', epochs=1)
    said = f'{_how(run)} {trained_words(Record(run, "finished"))} {recipe_words(run)}'
    assert said.count(named[tune]) == 3 and f', {tune},' not in said and f', {tune};' not in said
    assert bool(placeholder.search(said)) == (tune != 'probe')


def test_repeats_of_a_probe_say_their_split(probes):
    for config in probes:
        lines = [repr(r).splitlines()[0] for r in config]
        assert all(f'split {r.run.split_seed}' in line and 'seed' not in line for r, line in zip(config, lines))
        assert len({line.partition(': ')[2] for line in lines}) == len(config)


@pytest.mark.parametrize('params', [dict(epochs=9, lr=.5), dict(bs=8, opt='sgd'), dict(wd=0., schedule='flat', patience=3)])
def test_settings_without_effect_are_not_said_of_a_probe(params):
    run = make_run(dataset='digits', model='lenet5', init='imagenet', tune='probe', **params)
    assert recipe_words(run) == 'linear probe: logistic regression'
    published = make_run(dataset='digits', model='lenet5', init='imagenet', tune='head', epochs=20)
    assert [reason_words(r) for r in run_differences(run, published)] == ['tuning linear probe for last layer only']


@pytest.mark.parametrize('scale', ['smoke', 'small', 'full'])
def test_plans_count_no_epochs_of_probes(scale):
    plan, runs = plan_table('transfer', scale, SimpleNamespace(seconds=lambda r: 1.)), study_runs('transfer', scale)
    assert [e == 0 for e in plan.epochs] == [is_probe(runs[row][0]) for row in plan.index]


# a value of each field of a run, with what it needs
changed = dict(
    model='mlp_s', init='imagenet', size=40, augment='flip', normalize='half', interpolation='bicubic', image_range=(0, 4095),
    subset=100, max_bad=3, valid=0, folds=3, groups='duplicates', grown_from='fresh', precision='fp32', torch_compile=True,
    epochs=3, lr=.5, wd=.5, bs=8, opt='sgd', schedule='cosine', lr_start=1e-5, warmup=(1., dict(schedule='flat')),
    gamma=(.5, dict(schedule='step')), step_epochs=(2, dict(schedule='step')), momentum=.5, momentum_low=.5,
    nesterov=(True, dict(opt='sgd')), decay_all=True, clip=1., dropout=.5, head_init='zero', label_smoothing=.1,
    class_weights='balanced', mixup=.2, cutmix=.2, ema=.9, tta=4, patience=3, min_epochs=(2, dict(patience=3)), tune='head',
    freeze_norm=True, frozen_epochs=2, layer_decay=.7, layout='class/group', image_col='file', label_col='kind', split_col='part')
of_tables = 'image_col', 'label_col', 'split_col'


def one(n=0, images='abc', **params):
    run = make_run(**dict(dataset='folder:photos', model='lenet5', size=32, augment='none', seed=n) | params)
    return Record(run, 'finished', info=dict(data=dict(fingerprint=images)))


def ways(field):
    "Two seeds of a way to train, and of one that differs in `field`."
    value, needed = changed[field] if isinstance(changed[field], tuple) and field != 'image_range' else (changed[field], {})
    base = dict(needed, dataset='csv:photos.csv' if field in of_tables else 'folder:photos')
    return [one(n, **base) for n in range(2)], [one(n, **base, **{field: value}) for n in range(2)]


def test_every_field_is_tried(): assert {*changed} == (fields_of(Run) | fields_of(Recipe)) - {'dataset', 'recipe', 'seed', 'split_seed', 'fold'}


@pytest.mark.parametrize('field', changed)
def test_ways_that_differ_in_one_field_have_names_that_say_it(field):
    found = configs([r for way in ways(field) for r in way])
    assert len(found) == 2
    names = general.way_names(found)
    assert [*names.values()] == found and not any(n.endswith('(2)') for n in names), names


def shown(records, monkeypatch):
    "The rows of the table of ways to train."
    rows = []
    monkeypatch.setattr(general, 'groups_table', lambda groups: rows.extend(groups.items()) or pd.DataFrame(
        0., index=[*groups], columns='dataset flops model init seconds epochs'.split()))
    monkeypatch.setattr(general, 'has_learnt', lambda g: False)
    general.other_sections(records)
    return rows


def test_no_way_is_dropped(monkeypatch):
    all_ways = [r for field in changed if field not in of_tables for way in ways(field) for r in way]
    records = [*{r.id: r for r in all_ways}.values()]
    rows = shown(records, monkeypatch)
    assert len(rows) == len(configs(records)) > 40 and sum(len(g) for _, g in rows) == len(records)


probe = dict(init='imagenet', tune='probe', epochs=1)
alike = {
    'probes': [dict(probe, size=64, split_seed=s) for s in range(3)] + [dict(probe, size=48)]
              + [dict(probe, size=64, folds=3, fold=k) for k in range(3)] + [dict(init='imagenet', tune='head', size=40)],
    'no words': [dict(probe, lr=.1), dict(probe, lr=.2), dict(probe, lr=.3)],
    'other images': [dict(images='abc'), dict(images='xyz')],
    'files': [dict(init='file:home/a.pt'), dict(init='file:home/b.pt'), dict(init='file:there/b.pt')],
    'columns': [dict(dataset='csv:t.csv', groups=g) for g in ('a_b', 'a b', 'a b (2)')],
    'told or not': [dict(nesterov=v, opt='sgd') for v in (None, False, True)]}
counted = {'probes': 4, 'no words': 3, 'other images': 2, 'files': 3, 'columns': 3, 'told or not': 3}


@pytest.mark.parametrize('kind', alike)
def test_names_alike_are_told_apart_or_numbered(kind, monkeypatch):
    rows = shown([one(**p) for p in alike[kind]], monkeypatch)
    assert len(rows) == len({name for name, _ in rows}) == counted[kind]
    if kind == 'probes': assert sorted(name.partition('linear probe, ')[2] for name, _ in rows) == ['', '48 pixels', '64 pixels', '64 pixels, 3 folds']
    assert not any('home' in name or 'there' in name for name, _ in rows)


@pytest.mark.parametrize('name', ['LeNet-5', 'MobileNetV2, from ImageNet, linear probe, 64 pixels, 3 folds',
                                  'EfficientNet-Lite0, from ImageNet, all layers from a linear probe, 2 epochs'])
def test_long_names_do_not_widen_the_curves(name, every):
    fig = plot_group_curves({f'{name}, {k}': every[:1] for k in range(6)})[0].figure
    fig.draw_without_rendering()
    assert fig.get_tightbbox().width <= fig.get_figwidth()
    plt.close('all')
