"Published figures beside ours: times of the whole network, figures by their id, what was counted without a training."
import dataclasses
import pandas as pd, pytest
from imgstudy.records.find import committed_records, records_in
from imgstudy.references import published_items, references
from imgstudy.report.coverage import _trained_words, holds
from imgstudy.report.wording import reasons_words
from imgstudy.runs import make_run
from imgstudy.stats.published import Reason, Verdict, compare_reference, network_seconds
from imgstudy.stats.seeds import synth_record
from imgstudy.study.studies import studies

ref = references().set_index('id', drop=False).loc
run = lambda seed, **params: make_run(dataset='stanford_dogs20', model='mobilenetv2_keras', init='imagenet', tune='head', seed=seed, **params)


def timed(seconds=2., batches=4, seed=0, features=None, test=829):
    r = dataclasses.replace(synth_record(seed, .9), run=run(seed))
    r.info['data']['counts']['test'] = test
    r.info['cost'] = dict(seconds=3600., test_seconds=seconds, test_batches=batches)
    if features: r.info['features'] = dict(zip(('computed', 'kept', 'seconds'), features))
    return r


def beside(id, records): return compare_reference(ref[id], records, records[0].run).iloc[0]


@pytest.mark.parametrize('features, ms', [(None, 500), ((4145, 0, 29.), 1950), ((829, 0, 2.), 1000)])
def test_milliseconds_per_step_are_of_the_whole_network(features, ms):
    assert beside('2.15', [timed(features=features)]).ours == pytest.approx(ms)


@pytest.mark.parametrize('features', [(0, 4143, .7), (10, 4133, 1.)])
@pytest.mark.parametrize('metric', ['ms_per_step', 'images_per_second', 'seconds'])
def test_a_head_on_features_from_disk_has_no_time(features, metric):
    r = timed(features=features)
    assert not holds(r, metric) and holds(timed(), metric) and pd.isna(network_seconds(r)) and pd.isna(network_seconds(r, 'training'))
    for id in ('2.15', '1.35', '1.21'): assert pd.isna(beside(id, [r]).ours)


def test_of_several_trainings_those_that_were_timed_count():
    found = beside('2.15', [timed(seed=0, features=(829, 0, 2.)), timed(seed=1, features=(0, 829, .1)), timed(seed=2, features=(0, 829, .1))])
    assert found.ours == pytest.approx(1000) and found.n == 1 and 'timed in 1 of 3 trainings' in found.note


@pytest.mark.parametrize('batches, said', [(4, True), (26, False), (104, True)])
def test_a_step_of_other_images_is_a_reason(batches, said):
    reasons = beside('2.15', [timed(batches=batches)]).reasons
    assert (Reason('images_per_step', round(829/batches), 32) in reasons) == said
    assert Reason('machine', None) in reasons or any(r.field == 'machine' for r in reasons)
    assert not any(r.field == 'images_per_step' for r in beside('1.35', [timed(batches=batches)]).reasons)


def test_the_committed_step_is_that_of_the_network():
    from imgstudy.report.tables import answer_table
    with records_in(committed_records()): row = answer_table('dog_breeds', 'largest').set_index('id').loc['2.15']
    assert row.value > 300 and 'images per step 207 for 32' in reasons_words(row.reasons)


@pytest.mark.parametrize('n, verdict', [(1, Verdict.single), (2, Verdict.undecided), (3, Verdict.within)])
def test_that_an_interval_is_missing_is_a_reason_only_where_it_decides(n, verdict):
    loss = references(id='4.07').iloc[0]
    records = []
    for s in range(n):
        records.append(dataclasses.replace(synth_record(s, .7), run=make_run(dataset='cifar100', model='lenet5', seed=s)))
        records[-1].history = records[-1].history.assign(train_loss=4.44 + .002*s)
    found = compare_reference(loss, records, records[0].run).iloc[0]
    assert found.verdict == verdict and any(r.field == 'interval' for r in found.reasons) == (verdict == Verdict.undecided)


def test_an_implausible_figure_is_called_so_beside_it():
    assert 'implausible' in ref['4.15'].note and 'implausible' in studies['cifar100_schedules'].note


@pytest.mark.parametrize('seeds, words', [((1,), '1 seed,'), ((2,), '2 seeds,'), ((2, 1, 1), '1 to 2 seeds,'), ((3, 3), '3 seeds,')])
def test_seeds_of_the_rows_of_an_item(seeds, words): assert _trained_words([[timed(seed=s) for s in range(n)] for n in seeds]).startswith(words)


@pytest.mark.parametrize('id, study, needs', [('3.15', 'cifar10_finetune', 'GPU hours (256 px)'), ('3.18', 'cifar10_finetune', 'GPU hours (256 px)'),
                                              ('5.01', 'cifar10_scratch_vs_resnet18', ''), ('5.02', 'cifar10_scratch_vs_resnet18', '')])
def test_weights_of_cntk_stand_in_for_resnet18_and_are_named(id, study, needs):
    item = published_items(id=id).iloc[0]
    assert item.needs == needs and 'weights of CNTK' in item.note and item.row.startswith('ResNet-18 of CNTK')
    row = next(r for r in studies[study].rows if r.name == item.row)
    assert row.run['model'] == 'resnet18_cntk' and row.published['model'] == 'resnet18'
    assert all(ref[i].model == 'resnet18' for i in item.references.split())


def test_a_network_of_cntk_is_said_to_be_another_one():
    from imgstudy.report.tables import answer_table
    with records_in(committed_records()): found = answer_table('cifar10_finetune', 'largest').loc['ResNet-18 of CNTK']
    assert found.id == '3.15' and {'network', 'weights'} <= {r.field for r in found.reasons} and found.verdict == Verdict.not_comparable


@pytest.fixture
def of_ours(monkeypatch):
    "f(lines): `published_beside_ours` of lines (id, row, images, published, ours), each row a training of its own."
    from imgstudy.report import evidence
    def beside(lines, model='convnext_base', study='cats_dogs_architectures'):
        names = [*dict.fromkeys(row for _, row, *_ in lines)]
        make = lambda i: dataclasses.replace(synth_record(i, .9), run=make_run(dataset='cats_vs_dogs', model=model, seed=i))
        groups = {name: [make(i)] for i, name in enumerate(names)}
        columns = ['id', 'row', 'images', 'published', 'value']
        t = pd.DataFrame(lines, columns=columns).assign(metric='accuracy', n=1, value_low=.1, value_high=.9, over='images', verdict=Verdict.not_comparable)
        monkeypatch.setattr(evidence, 'studies', {study: studies[study]})
        monkeypatch.setattr(evidence, 'study_groups', lambda s: groups)
        monkeypatch.setattr(evidence, 'answer_table', lambda s, scale: t.assign(reasons=[()]*len(t)).set_index('row'))
        table = evidence.published_beside_ours()
        return table, evidence.published_names(table)
    return beside


@pytest.mark.parametrize('lines', [
    [('1.30', 'ConvNeXt-B', 'validation', .8492, .85), ('1.20', 'ConvNeXt-B', 'validation', .8949, .85)], # in the table and, otherwise, in the text
    [('1.20', 'ConvNeXt-B', 'validation', .8949, .85), ('1.30', 'ConvNeXt-B', 'validation', .8492, .85)],
    [('5.01', 'one', 'test', .83, .85), ('5.03', 'other', 'test', .83, .8)], # equal values of one network
    [('3.20a', 'MLP (S)', 'kaggle', .4242, .41), ('3.02', 'MLP (S)', 'validation', .4242, .41)]])
def test_published_accuracies_are_counted_by_id(of_ours, lines):
    assert [*of_ours(lines)[0].id] == [id for id, *_ in lines]


@pytest.mark.parametrize('text, table, value', [('2.16b', '2.13', .8), ('3.20b', '3.20a', .42), ('4.05b', '4.05a', .02)])
def test_what_a_text_repeats_of_a_table_is_one(of_ours, text, table, value):
    assert [*of_ours([(table, 'row', 'test', ref[table].value, .5), (text, 'row', 'test', value, .5)])[0].id] == [table]
    assert [*of_ours([(text, 'row', 'test', value, .5)])[0].id] == [text]


def test_the_repeats_are_of_the_same_network():
    from imgstudy.report.tables import said_again as _repeats
    for text, table in _repeats.items():
        a, b = ref[text], ref[table]
        assert (a.study, a.model, a.metric, a.split) == (b.study, b.model, b.metric, b.split) and a['where'].startswith('text') and abs(a.value - b.value) < .01


def test_that_the_nearest_of_several_is_shown_is_said(of_ours):
    lines = [('3.13', f'batch {bs}, rate 0.001', 'validation', .51, ours) for bs, ours in ((32, .3), (64, .5), (128, .6))]
    table, names = of_ours(lines + [('3.22', 'batch 64, rate 0.001', 'kaggle', .54, .5)], 'vit')
    assert [*table.value] == [.5, .5] and [*table.settings] == [3, 1]
    assert 'nearest of 3 settings' in names[0] and 'nearest' not in names[1]


def test_the_committed_accuracies_of_ours_are_those_of_the_table():
    from imgstudy.report.tables import said_again as _repeats
    from imgstudy.report.evidence import published_beside_ours, published_names
    with records_in(committed_records()): table = published_beside_ours()
    assert table.id.is_unique and not {*_repeats} & {*table.id}
    assert all(r.images == 'fold' or ref[r.id].value == r.published for r in table.itertuples())
    assert [('nearest of' in n) for n in published_names(table)] == [*(table.settings > 1)]


@pytest.mark.parametrize('id, half', [('3.19a', 50_000), ('3.19c', 50_000), ('5.04a', 50_000), ('5.04b', 500_000), ('1.16a', .005), ('4.14b', .005), ('5.06', .005), ('2.15', .005)])
def test_how_round_a_published_number_is(id, half):
    from imgstudy.stats.published import rounding
    assert rounding(ref[id]) == pytest.approx(half)


def counted():
    from imgstudy.report.coverage import counted_table
    return counted_table().set_index('id', drop=False)


def test_every_published_number_that_needs_no_table_of_trainings_stands_beside_ours():
    with records_in(committed_records()): table = counted()
    wanted = references()[lambda t: t.metric.isin(['channel_mean', 'channel_std', 'parameters', 'accuracy_gain']) & ~t.quoted]
    assert [*table.id] == [*wanted.id] and {'1.16a', '1.16f', '2.16c', '3.19a', '4.14b', '4.19b', '5.04b'} <= {*table.id}
    assert [f'{v:.3f}' for v in table.ours[['1.16a', '1.16b', '1.16c', '1.16d', '1.16e', '1.16f']]] == ['0.488', '0.456', '0.417', '0.258', '0.252', '0.254']
    assert [*table.ours[['3.19a', '5.04a', '5.04b']]] == [11_689_512, 1_147_466, 11_181_642]
    assert {*table.verdict[table.metric != 'accuracy_gain']} == {Verdict.within}


def test_without_records_numbers_of_images_and_gains_are_missing(tmp_path):
    from imgstudy.report.coverage import counted_words
    with records_in(tmp_path): table = counted()
    missing = table[table.verdict == Verdict.missing]
    assert {*missing.metric} == {'channel_mean', 'channel_std', 'accuracy_gain'} and missing.ours.isna().all()
    words = counted_words(table)
    assert words.ours[table.metric.values == 'channel_mean'].eq('missing').all() and 'missing: weights not at hand' in [*words.verdict]


def test_a_gain_of_smaller_trainings_is_not_comparable(monkeypatch):
    from imgstudy.report import coverage
    from imgstudy.study.studies import study_runs
    def found(study, row, metrics):
        runs = study_runs(study, dict(full='full', smaller='small')[state], 3)[row]
        records = [dataclasses.replace(synth_record(s, .8 if 'cycle' in row else .7), run=r) for s, r in enumerate(runs)]
        for r in records: r.history['valid_accuracy'] = float('nan') # nothing says that they were still learning
        return state, records
    monkeypatch.setattr(coverage, 'row_records', found)
    for state, smaller in (('full', False), ('smaller', True)):
        gain = coverage._gained(ref['4.14b'])
        assert gain['ours'] == pytest.approx(.1, abs=.002) and any(r.smaller for r in gain['reasons']) == smaller and gain['n'] == 3
        assert gain['verdict'] == Verdict.not_comparable # chosen on test images there
        assert coverage._gained(pd.Series({**ref['4.14b'], 'selected_on': ''}))['verdict'] == (Verdict.not_comparable if smaller else Verdict.above)
    monkeypatch.setattr(coverage, 'row_records', lambda study, row, metrics: ('full' if 'cycle' in row else 'smaller', found(study, row, metrics)[1]))
    assert coverage._gained(ref['4.14b'])['verdict'] == Verdict.missing # two scales


@pytest.mark.parametrize('model, network', [('resnet18_cntk', True), ('resnet18_cntk_cut', False), ('resnet18', None)])
@pytest.mark.parametrize('id', ['5.01', '5.02'])
def test_a_network_that_stands_in_is_not_comparable_for_its_weights(model, network, id):
    records = [dataclasses.replace(synth_record(s, .85), run=make_run(dataset='cifar10', model=model, init='imagenet', augment='standard', seed=s)) for s in range(3)]
    found = beside(id, records)
    assert [r.field for r in found.reasons] == [[], ['weights'], ['network', 'weights']][0 if network is None else 1 + network]
    assert (found.verdict == Verdict.not_comparable) == (network is not None)
    if network: assert reasons_words(found.reasons) == 'network ResNet-18 with one block more for ResNet-18; weights of Microsoft (CNTK) for those of timm'


def test_the_published_resnet18_stands_beside_that_of_cntk():
    from imgstudy.report.tables import answer_table
    with records_in(committed_records()): table = answer_table('cifar10_scratch_vs_resnet18', 'largest').loc['ResNet-18 of CNTK, fine-tuned']
    assert [*table.id] == ['5.01', '5.02'] and [*table.published] == [.83, .86] and {*table.verdict} <= {Verdict.not_comparable, Verdict.missing}
    if table.n.iloc[0]: assert all({'network', 'weights'} <= {r.field for r in reasons} for reasons in table.reasons)


def test_the_stand_in_is_trained_at_full_length():
    from imgstudy.study.studies import study_runs
    full, small = (study_runs('stl5_transfer', s, 1) for s in ('full', 'small'))
    scratch, moved = (full[f'{k}, on the stand-in'][0] for k in ('from scratch', 'transferred'))
    source, published = full['the source, on CIFAR-100'][0], full['transferred'][0]
    assert (source.subset, source.valid, source.recipe.epochs) == (None, 0, 100) and moved.init == published.init != small['transferred'][0].init
    for ours in (scratch, moved): assert dataclasses.replace(ours, dataset='stl5', init='scratch') == dataclasses.replace(published, init='scratch')
    assert len({r for rs in small.values() for r in rs}) == len(full), 'no training of scale small stands in two rows'


def test_the_names_of_two_figures_of_the_same_images_do_not_name_the_images(of_ours):
    names = of_ours([('5.01', 'ResNet-18', 'test', .83, .7), ('5.02', 'ResNet-18', 'test', .86, .7)])[1]
    assert all(n.endswith('ResNet-18 (one of 2 published)') for n in names)
    names = of_ours([('3.02', 'MLP (S)', 'validation', .4, .41), ('3.20a', 'MLP (S)', 'kaggle', .42, .41)])[1]
    assert names[0].endswith('(validation images)') and names[1].endswith("(Kaggle's images)")


def test_what_a_report_quotes_of_others_is_none_of_its_results():
    from imgstudy.report.general import chosen_on_test
    from imgstudy.report.tables import figure_verdicts
    for i in published_items().itertuples():
        assert i.kind != 'quoted' or all(ref[id].quoted for id in i.references.split()), i.id
    assert ref['1.41a'].quoted and not ref['1.41b'].quoted # the loss of the public best, and that of the report
    with records_in(committed_records()): found = figure_verdicts()
    assert not {id for id in found.index if ref.obj.quoted.get(id)} and {'1.40', '1.41b'} <= {*found.index}
    t = references()
    own = t[~t.quoted & t.study.isin([*studies]) & (t.split != 'train')]
    assert chosen_on_test()[1] == own.metric.isin(['accuracy', 'zero_one_loss', 'test_loss', 'val_loss']).sum()
