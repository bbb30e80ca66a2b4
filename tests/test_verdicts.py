"Verdicts that say no more than the trainings behind them."
import dataclasses, re
import numpy as np, pandas as pd, pytest
from imgstudy.records.find import committed_records, records_in
from imgstudy.references import references
from imgstudy.report.overview import study_groups
from imgstudy.report.sections import _interval, coverage_sentence, results_table
from imgstudy.report.tables import _fold_means, _one_verdict, answer_table, figure_verdicts, folds_table, said_again
from imgstudy.report.wording import gain_sentence, gain_words, reason_words, short_words, winner_words
from imgstudy.runs import make_run
from imgstudy.stats.overlap import draw_folds, fold_coverage, overlap
from imgstudy.stats.pairs import compare_all, paired_gain
from imgstudy.stats.published import Reason, Verdict, compare_reference, taken_as, taken_span, timed_words
from imgstudy.stats.seeds import has_learnt, late_gain, synth_folds, synth_record, too_short
from imgstudy.study.studies import get_study, row_references, studies, study_runs

ref = references(id='4.02').iloc[0]


def ours(frac, n=3, **params):
    run = lambda s: make_run(dataset='cifar100', model='perceptron2', seed=s, **params)
    return [dataclasses.replace(synth_record(s, frac), run=run(s)) for s in range(n)]


def verdict(published, records): return compare_reference(ref.replace(ref.value, published), records, records[0].run).verdict[0]


@pytest.mark.parametrize('published', [.55, .62, .7, .8])
def test_one_training_is_never_above_or_below(published):
    assert verdict(published, ours(.7, 1)) == Verdict.single == 'one training, seeds not varied'
    assert verdict(published, ours(.7, 2)) == Verdict.undecided


@pytest.mark.parametrize('published, expected', [(.60, 'above'), (.70, 'within'), (.80, 'below')])
def test_three_trainings_are(published, expected): assert verdict(published, ours(.7)) == expected


@pytest.mark.parametrize('published, expected', [(.70, 'too short to tell'), (.60, 'too short to tell'), (.501, 'within')])
def test_nothing_from_networks_at_chance_unless_that_was_published(published, expected): assert verdict(published, ours(.5)) == expected


@pytest.mark.parametrize('curve, schedule, why', [
    ((.1, .2, .3, .4), 'flat', 'still learning fast when it stopped'), ((.1, .2, .3, .4), 'cosine', ''), ((.3, .4, .4, .41), 'flat', ''),
    ((.2, .5, .4, .3), 'flat', ''), ((.3,)*6 + (.33, .36), 'flat', 'still learning fast when it stopped')])
def test_still_learning(curve, schedule, why):
    records = ours(.7, schedule=schedule)
    for r in records: r.history = pd.DataFrame(dict(epoch=range(1, len(curve) + 1), valid_accuracy=curve))
    assert too_short(records) == why
    assert verdict(.6, records) == ('too short to tell' if why else 'above')


@pytest.mark.parametrize('trained, schedule, why', [((.1, .2, .3, .4), 'flat', 'still learning fast when it stopped'), ((.1, .2, .3, .4), 'one_cycle', ''),
                                                    ((.3, .4, .4, .41), 'flat', ''), (None, 'flat', '')])
def test_without_validation_images_training_images_tell_of_the_last_quarter(trained, schedule, why):
    r = synth_record(0, .7, schedule=schedule)
    r.history = pd.DataFrame(dict(epoch=range(1, 5), valid_accuracy=np.nan))
    if trained: r.history['train_accuracy'] = trained
    assert np.isnan(late_gain(r)) == (trained is None) and too_short([r]) == why


def test_validation_images_tell_before_training_images():
    r = synth_record(0, .7, schedule='flat')
    r.history = pd.DataFrame(dict(epoch=range(1, 5), valid_accuracy=(.3, .4, .4, .4), train_accuracy=(.1, .2, .3, .4)))
    assert late_gain(r) == 0 and too_short([r]) == ''


@pytest.mark.parametrize('value, words', [(.83, '0.83 is taken as 0.825 to 0.835'), (.1493, '0.1493 is taken as 0.14925 to 0.14935'),
                                          (.4, '0.4 is taken as 0.395 to 0.405'), (.9187, '0.9187 is taken as 0.91865 to 0.91875')])
def test_how_wide_a_published_figure_is_taken_to_be(value, words):
    assert words in taken_as(ref.replace(ref.value, value))
    assert words in compare_reference(ref.replace(ref.value, value), ours(.7), ours(.7)[0].run).note[0]


@pytest.mark.parametrize('id, unit, words', [('3.19c', 1, '2,450,000 to 2,550,000'), ('5.04b', 1, '10,500,000 to 11,500,000'), ('1.16a', 1, '0.485 to 0.495'), ('4.14b', 100, '5.5 to 6.5')])
def test_counted_numbers_say_how_wide_they_are_taken(id, unit, words):
    from imgstudy.report.coverage import counted_table, counted_words
    assert taken_span(references(id=id).iloc[0], unit) == words
    with records_in(committed_records()): table = counted_table()
    said, row = counted_words(table).verdict, table.id.tolist().index(id)
    assert (f'(published taken as {words}' in said.iloc[row]) == (table.verdict[row] in (Verdict.within, Verdict.above, Verdict.below))


@pytest.mark.parametrize('study', ['dog_breeds', 'cats_dogs_optimizers', 'cifar10_cnn_augmentation', 'cifar100_baseline'])
def test_cells_of_a_verdict_say_how_wide_the_published_figure_is_taken(study):
    from imgstudy.report.sections import published_and_ours
    with records_in(committed_records()):
        table, notes = results_table(study), answer_table(study, 'largest').note
        page = published_and_ours(table, study)[0].data
    decided = table.verdict.isin([Verdict.within, Verdict.above, Verdict.below])
    assert [bool(t) for t in table.taken] == decided.tolist()
    for span, note in zip(table.taken, notes): assert not span or f'is taken as {span}' in note and f'(published taken as {span})' in page


@pytest.mark.parametrize('kept, metric, words', [
    ([20, None, None], 'ms_per_step', 'timed in 1 of 3, 200 images a step'), ([20, 40, 10], 'images_per_s', '100 to 400 images a step'),
    ([20]*3, 'ms_per_step', '200 images a step'), ([None]*3, 'ms_per_step', ''), ([20]*3, 'accuracy', ''), ([20]*3, 'train_hours', '')])
def test_a_time_says_in_how_many_trainings_and_of_how_many_images_it_is(kept, metric, words):
    records = [synth_record(s, .7) for s in range(3)]
    for r, n in zip(records, kept): r.info['cost'] = dict(seconds=9.) | (dict(test_seconds=29.037, test_batches=n) if n else {})
    assert timed_words(metric, records) == words
    line = pd.Series(dict(n=3, value=1451.849, value_low=np.nan, value_high=np.nan, over='seeds', metric=metric))
    assert _interval(line, timed=words) == (f'1,452 ({words})' if words else '1451.849')
    ends = pd.concat([line, pd.Series(dict(value_low=1300.4, value_high=1600.2))]).groupby(level=0, sort=False).last()
    if words: assert _interval(ends, timed=words) == f'1,452 [1,300, 1,600] over seeds ({words})'


def test_the_table_of_costs_has_the_test_pass_where_it_was_timed():
    from imgstudy.report.general import _configs_table
    records = [synth_record(0, .7, lr=lr) for lr in (.1, .01)]
    for r in records: r.info |= dict(model=dict(parameters=1, flops=1e6, trained=1), environment=dict(gpu=None, cpu='x')); r.info['cost'] = dict(seconds=9.); r.history['seconds'] = 1.; r.info['data'] |= dict(fingerprint='x', classes=['a', 'b'])
    assert 'ms a test step' not in _configs_table(records)
    records[0].info['cost'] |= dict(test_seconds=2., test_batches=10)
    table = _configs_table(records)
    assert sorted(table['ms a test step']) == ['', '200'] and sorted(table['test images a second']) == ['', '2,000']


@pytest.mark.parametrize('valid, words', [(None, 'ours on validation images'), (0, 'ours not at all: its last epoch')])
def test_chosen_on_test_images_is_said_of_both_sides(valid, words):
    chosen = references(id='4.18').iloc[0]
    found = compare_reference(chosen, ours(.7, **({} if valid is None else dict(valid=valid))), ours(.7)[0].run).iloc[0]
    reason = next(r for r in found.reasons if r.field == 'selected_on')
    assert found.verdict == Verdict.not_comparable and words in reason_words(reason)


def test_figures_are_counted_by_id():
    with records_in(committed_records()):
        found = figure_verdicts()
        ids = {id for s in studies.values() for id in answer_table(s, 'largest').id} - {''}
    again = {id for id in ids if said_again.get(id) in ids} # in a text, of a table
    assert {*found.index} == ids - again and found.index.is_unique and '2.16b' in again
    assert {'5.01', '5.02', '5.03', '1.23', '1.29', '1.31'} <= ids # 0.83 twice; 0.9832, 0.9932 and 0.9996


@pytest.mark.parametrize('several, one', [
    (['missing', 'not comparable'], 'not comparable'), (['within', 'below', 'below'], 'below'), (['not comparable', 'above'], 'above'),
    (['too short to tell', 'one training, seeds not varied'], 'one training, seeds not varied')])
def test_a_figure_that_several_rows_answer(several, one): assert _one_verdict([Verdict(v) for v in several]) == one


named = {'3.21': 'cifar10_cnn_augmentation', '3.22': 'cifar10_vit', '1.05': 'cats_dogs_optimizers', '1.09': 'cats_dogs_optimizers', '1.13': 'cats_dogs_optimizers',
         '2.15': 'dog_breeds', '4.03': 'cifar100_baseline', '4.06': 'cifar100_baseline', '4.15': 'cifar100_schedules', '3.20a': 'cifar10_mlp'}
@pytest.mark.parametrize('id', named)
def test_figures_that_had_no_row(id):
    with records_in(committed_records()): assert id in {*answer_table(named[id], 'largest').id}


def test_losses_of_folds_beside_those_published():
    with records_in(committed_records()): table = folds_table('cats_dogs_optimizers', metric='train_loss')
    assert table['Adam, published'].tolist() == pytest.approx([.5076, .5354, .4723, .3835, .4804, .47584])


def test_gains_over_networks_that_learnt_nothing_are_told_of_none():
    a, b = [synth_record(s, .5) for s in range(3)], [synth_record(s, .8) for s in range(3)]
    gain = paired_gain(a, b)
    assert not gain.told and gain_words(gain) == short_words(gain) == 'too short to tell: the first not better than chance'
    row = next(compare_all(dict(a=a, b=b)).itertuples())
    assert row.better is None and winner_words(row) == gain_words(gain)
    assert compare_all(dict(a=a, b=b), as_published=True).better.iloc[0] == 'b'


@pytest.mark.parametrize('fracs', [([.7, .7, .7], [.71, .72, .76]), ([.6, .61, .62, .63], [.62, .62, .64, .66]), ([.7]*5, [.7, .71, .69, .72, .73])])
def test_more_sources_of_noise_never_narrow(fracs):
    for make in (synth_folds, lambda fs: [synth_record(s, f) for s, f in enumerate(fs)]):
        gain = paired_gain(*map(make, fracs))
        assert gain.both[0] <= gain.seeds[0] and gain.both[1] >= gain.seeds[1]


def test_the_ratio_in_use_is_printed():
    gain = paired_gain(synth_folds([.7, .71, .69]), synth_folds([.71, .72, .76]))
    assert gain.ratio == .5 and 'corrected for shared images (ratio 0.5)' in gain_sentence(gain)
    assert compare_all(dict(a=synth_folds([.7, .71, .69]), b=synth_folds([.71, .72, .76]))).test.iloc[0] == 'Nadeau-Bengio, ratio 0.5'


@pytest.mark.parametrize('subset', [1000, 250, 100])
def test_folds_on_subsets_are_covered(subset):
    found = fold_coverage(2500, 5, subset, times=150, learnt=.03)
    assert found.corrected > .94 and found.ratio == 500/subset
    assert overlap(draw_folds(2500, 5, subset)[0]) == pytest.approx(.75*subset/2000, abs=.06)


@pytest.mark.parametrize('values, half', [([.7985, .8262, .7437], .00005), ([.798, .8262, .74], .00005), ([.8, .9, .75], .005), ([.1, .2], .005)])
def test_a_mean_is_as_wide_as_the_figures_it_is_of(values, half):
    row = ref.replace(ref.value, .5)
    folds = pd.DataFrame([row.to_dict() | dict(id=f'9.9{"abcde"[i]}', value=v, setting=f'fold {i + 1} of 3', unit='share') for i, v in enumerate(values)])
    mean = _fold_means(folds).iloc[0]
    ends = [float(x) for x in taken_as(mean).split(' as ')[1].split(' to ')]
    assert mean.value == pytest.approx(np.mean(values), abs=1e-6) and (ends[1] - ends[0])/2 == pytest.approx(half, abs=1e-5*(half > .001) + 6e-6)


def test_printed_means_keep_their_own_width(): assert _fold_means(references(id='4.02')).equals(references(id='4.02'))


@pytest.mark.parametrize('over, ratio, said', [('folds', .25, 'over folds, corrected for shared images (ratio 0.25)'), ('splits', .3125, 'over splits, corrected for shared images (ratio 0.312)'),
                                               ('seeds', 0., 'over seeds'), ('images', .25, 'over images')])
def test_intervals_name_the_ratio_that_widens_them(over, ratio, said):
    row = pd.Series(dict(n=5, value=.7, value_low=.6, value_high=.8, over=over))
    assert _interval(row, ratio) == f'0.700 [0.600, 0.800] {said}'


def test_every_interval_over_folds_or_splits_names_its_ratio():
    with records_in(committed_records()): said = [w for s in ('cats_dogs_optimizers', 'transfer', 'dog_breeds') for w in results_table(s).ours]
    assert [w for w in said if re.search('over (folds|splits)', w) and 'corrected for shared images (ratio' not in w] == []
    assert sum('ratio' in w for w in said) > 9 and not any('over seeds, corrected' in w for w in said)


@pytest.mark.parametrize('k, ratio, held', [(5, .25, '87.5 %'), (5, 2.5, '9')])
def test_how_often_intervals_over_folds_hold(k, ratio, held):
    said = coverage_sentence(k, ratio)
    assert f'here {ratio:.3g} ' in said and f'of {k} folds {held}' in said


def planned(study, row, scale, n=3):
    return [dataclasses.replace(synth_record(s, .7), run=r) for s, r in enumerate(study_runs(study, scale, n)[row])]


cut = 'trained on less than a tenth of the full images and epochs'
@pytest.mark.parametrize('study, row, small', [
    *(('cifar100_schedules', f'{net}, {how}', cut) for net in ('2-layer perceptron', 'LeNet-5') for how in ('one cycle', 'cosine', 'exponential')),
    ('cifar100_deeper', 'LeNet-5, batch norm', cut), ('tuned', 'CIFAR-10 MLP (S)', cut),
    ('stl5_transfer', 'from scratch', ''),  # its rows are whole, on other images
    ('cifar100_baseline', 'LeNet-5', 'still learning fast when it stopped')])  # at a constant rate the curve says so
def test_a_schedule_that_was_cut_is_too_short(study, row, small):
    from imgstudy.report.tables import why_short
    assert why_short(planned(study, row, 'small')) == small
    if small == cut: assert why_short(planned(study, row, 'full')) == ''


@pytest.mark.parametrize('image_size', [16, 32, 96])
def test_the_size_of_images_alone_cuts_nothing_short(image_size, monkeypatch):
    from imgstudy.report import tables
    full = study_runs('cifar100_schedules', 'full', 1)['LeNet-5, one cycle'][0]
    half = dataclasses.replace(full, size=image_size, recipe=dataclasses.replace(full.recipe, epochs=50))
    monkeypatch.setattr(tables, '_full_runs', lambda registered: {half: full})
    assert tables.why_short([dataclasses.replace(synth_record(0, .7), run=half)]) == ''


def test_a_source_that_was_cut_short_decides_no_comparison():
    from imgstudy.records.find import sound_records
    from imgstudy.report.evidence import named_pairs, transfer_tally
    from imgstudy.report.findings import brief_gain, transfer_verdict
    from imgstudy.report.front import _gain_text
    from imgstudy.report.tables import why_short
    from imgstudy.stats.configs import transfer_pairs
    with records_in(committed_records()):
        pairs = named_pairs(transfer_pairs(sound_records(committed_records())[0]))
        tally, said = transfer_tally(pairs), transfer_verdict(pairs)
        short = {k: paired_gain(a, b, short=why_short) for k, (a, b) in pairs.items() if '4,900 images' in k}
        sentence = brief_gain(*pairs[next(iter(short))])
    assert tally['n'] == tally['won'] + tally['lost'] + tally['tied'] + tally['short'] and tally['short'] >= len(short) == 1
    assert 'too short to tell' in said and ('no difference was detected' in said) == bool(tally['tied'])
    assert f'the source network was {cut}' in sentence and 'no difference detected' not in sentence
    for g in short.values(): assert _gain_text(g).endswith('too short to tell') and '(' not in _gain_text(g)


def test_comparisons_of_schedules_that_were_cut_name_no_winner(monkeypatch):
    from imgstudy.report import tables
    rows = {r: planned('cifar100_schedules', r, 'small') for r in ('LeNet-5, one cycle', 'LeNet-5, cosine')}
    by_run = {x.run: dataclasses.replace(x) for rs in rows.values() for x in rs}
    monkeypatch.setattr(tables, 'find_records', lambda runs: [by_run[r] for r in runs if r in by_run])
    table = tables.comparisons_table('cifar100_schedules', 'small')
    assert len(table) == 1 and table.better.isna().all() and not table.gain.iloc[0].told and table.gain.iloc[0].short == (cut, cut)


def test_rungs_are_compared_with_the_one_below(monkeypatch):
    "The first is at chance: against it nothing could be told of any other."
    from imgstudy.report import tables
    levels = dict(zip((r.name for r in get_study('lenet_ladder').rows), (.5, .6, .7, .8, .85, .9, .93, .95)))
    groups = {k: [synth_record(s, frac) for s in range(3)] for k, frac in levels.items()}
    monkeypatch.setattr(tables, 'compared_groups', lambda *args: [('full', groups)])
    table = tables.comparisons_table('lenet_ladder', 'largest')
    assert [*zip(table['first'], table['second'])] == [*zip([*levels], [*levels][1:])]
    assert [g.told for g in table.gain] == [False] + [True]*6


@pytest.mark.parametrize('fracs, learnt', [((.5, .5, .9), False), ((.6, .61, .62), True), ((.5, .9), True)])
def test_seeds_that_guess_are_not_outvoted_by_one_that_learns(fracs, learnt):
    "The mean alone is far above chance; of two seeds no interval is taken."
    records = [synth_record(s, frac) for s, frac in enumerate(fracs)]
    assert has_learnt(records) == learnt and (too_short(records) == '') == learnt


def test_the_first_rung_is_not_shown_to_have_learnt():
    with records_in(committed_records()): ladder = study_groups('lenet_ladder')
    if ladder: assert not has_learnt(next(iter(ladder.values()))) and all(has_learnt(rs) for rs in [*ladder.values()][1:])
