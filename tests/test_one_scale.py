"Rows that are compared are of one scale and on the same seeds, whichever of them are trained already."
import dataclasses
import numpy as np, pytest
from imgstudy.records.find import committed_records, records_in
from imgstudy.report import overview, tables
from imgstudy.report.tables import comparisons_table, even_runs, folds_table, grid_part, grid_tables, scale_of
from imgstudy.runs import run_id
from imgstudy.stats.grid import factor_value
from imgstudy.stats.seeds import synth_record, too_short
from imgstudy.study.studies import study_runs

cats, whole = 'cats_dogs_optimizers', 'cifar10_cnn_regularisation'


@pytest.fixture
def trained(monkeypatch):
    "Makes up records: those of the first `n` runs of each row at each scale; the later the row, the better."
    made = {}
    def add(study, scale, n):
        for i, (row, runs) in enumerate(study_runs(study, scale).items()):
            frac = .6 + .01*i + .1*(scale == 'full')
            for r in runs[:n.get(row, 0) if isinstance(n, dict) else n]:
                made[run_id(r)] = dataclasses.replace(synth_record(r.seed, frac, images=500), run=r)
    find = lambda runs: [made[i] for i in map(run_id, runs) if i in made]
    for module in (tables, overview): monkeypatch.setattr(module, 'find_records', find)
    return add


def scales(study): return {scale_of(study, row, runs) for row, runs in even_runs(study, 'largest').items()}


@pytest.mark.parametrize('adam, scale', [(0, 'small'), (2, 'small'), (4, 'small'), (5, 'full')])
def test_a_cross_validation_counts_once_it_is_whole(trained, adam, scale):
    trained(cats, 'small', 5)
    trained(cats, 'full', {'SGD, momentum 0.9': 5, 'AdamW': 5, 'Adam': adam})
    table = comparisons_table(cats, 'largest')
    assert scales(cats) == {scale} and table.n_pairs.tolist() == [5]*3
    assert (folds_table(cats, 'largest')['AdamW, here'].dropna() > .3).all() == (scale == 'small')


def test_folds_are_shown_though_some_are_missing(trained):
    trained(cats, 'full', {'Adam': 3})
    assert folds_table(cats, 'largest')['Adam, here'].notna().sum() == 4 # and their mean


@pytest.mark.parametrize('study, begun', [(whole, 9), (whole, 23), ('cifar10_cnn_augmentation', 12)])
def test_one_seed_of_some_cells_takes_none_from_the_whole_grid(trained, study, begun):
    rows = [*study_runs(study)]
    trained(study, 'small', 3)
    trained(study, 'full', dict.fromkeys(rows[-begun:], 1)) # the best cells
    assert scales(study) == {'small'}
    best, = {*comparisons_table(study, 'largest')['first']}
    cell = grid_tables(study, 'largest')[0].iloc[0]
    record = tables.find_records(study_runs(study)[best])[0]
    assert best == rows[-1] and all(str(factor_value(record, f)) == str(cell[f]) for f in tables.grid_factors(study))


def test_one_seed_of_every_row_at_full_scale_is_compared(trained):
    study = 'cifar10_cnn_batch_lr'
    first = next(iter(study_runs(study)))
    trained(study, 'small', 3)
    trained(study, 'full', dict.fromkeys(study_runs(study), 1) | {first: 2})
    assert scales(study) == {'full'} and comparisons_table(study, 'largest').n_pairs.tolist() == [1]*15


@pytest.mark.parametrize('seeds', [(3, 2, 1), (2, 3, 3)])
def test_each_pair_on_the_seeds_that_both_have(trained, seeds):
    study = 'cifar10_vit'
    have = dict(zip(study_runs(study), seeds))
    trained(study, 'full', have)
    table = comparisons_table(study, 'largest')
    assert [min(have[r.first], have[r.second]) for r in table.itertuples()] == table.n_pairs.tolist()
    assert len(table) == 3 and (table.p_holm >= table.p).all()


def test_a_row_alone_at_full_scale_is_not_set_beside_small_ones(trained):
    study = 'cifar10_scratch_vs_resnet18'
    trained(study, 'small', {'CNN from scratch': 3, 'ResNet-18 of CNTK, fine-tuned': 1})
    trained(study, 'full', {'CNN from scratch': 3})
    assert scales(study) == {'small'}


def test_rows_of_many_data_sets_keep_their_own_scale(trained):
    rows = study_runs('tuned')
    alone, group = 'CIFAR-10 LeNet-5', [k for k in rows if k.startswith('cnn3 with erasing')]
    trained('tuned', 'small', 3)
    trained('tuned', 'full', {alone: 1} | dict.fromkeys(group[:2], 1))
    even = even_runs('tuned', 'largest')
    assert [scale_of('tuned', k, even[k]) for k in (alone, *group)] == ['full'] + ['small']*len(group)


def told(effects): return effects.p.notna().to_numpy()


@pytest.mark.parametrize('study', ['cifar10_cnn_batch_lr', whole, 'cifar10_cnn_augmentation', 'cifar10_vit'])
def test_committed_effects_of_what_was_too_short_have_no_interval(study):
    with records_in(committed_records()):
        part, (_, effects) = grid_part(study, 'largest'), grid_tables(study, 'largest')
    full = min(rs[0].info['data']['counts']['train'] for rs in part.values()) == 40_000  # there failures are as published
    level = lambda rs, e: str(factor_value(rs[0], e.factor)) in (e.level, e.against)
    sound = [full or not any(too_short(rs) for rs in part.values() if level(rs, e)) for e in effects.itertuples()]
    assert told(effects).tolist() == sound and effects.low.notna().tolist() == sound
    assert effects.finding.str.startswith('too short to tell: of').tolist() == [not s for s in sound]


@pytest.mark.parametrize('study', ['cifar10_cnn_batch_lr', 'cifar10_vit'])
def test_a_grid_that_is_whole_at_full_scale_is_judged_there(trained, study):
    trained(study, 'small', 3)
    assert not told(grid_tables(study, 'largest')[1]).any()
    first, second, *_ = study_runs(study)
    trained(study, 'full', dict.fromkeys(study_runs(study), 1) | {first: 3, second: 2})
    cells, effects = grid_tables(study, 'largest')
    assert cells.n.tolist() == [1]*6 and told(effects).all()
    assert {scale_of(study, k, [r.run for r in rs]) for k, rs in grid_part(study, 'largest').items()} == {'full'}
    assert not told(grid_tables(study, 'small')[1]).any()


def test_an_effect_says_how_many_of_its_cells_were_too_short(trained, monkeypatch):
    trained('cifar10_cnn_batch_lr', 'small', 3)
    monkeypatch.setattr(tables, 'too_short', lambda rs: 'not better than chance' if rs[0].run.recipe.lr == .01 else '')
    effects = grid_tables('cifar10_cnn_batch_lr')[1].set_index('level')
    words = 'too short to tell: of {} cells 2 not better than chance'
    assert effects.finding.tolist() == [words.format(4), words.format(4), words.format(6)]
    assert np.isnan(effects[['low', 'high', 'p']]).all(axis=None) and effects.effect.notna().all()


def test_without_the_cells_at_chance_the_other_levels_are_told_apart(trained, monkeypatch):
    trained('cifar10_cnn_batch_lr', 'small', 3)
    monkeypatch.setattr(tables, 'too_short', lambda rs: 'not better than chance' if rs[0].run.recipe.lr == 1e-4 else '')
    assert told(grid_tables('cifar10_cnn_batch_lr')[1]).tolist() == [True, False, False]
