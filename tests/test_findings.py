"The sentences of the findings say no more than the records: networks at chance, losses, other seeds, a lead that is none."
import dataclasses, re
import numpy as np, pandas as pd, pytest
from imgstudy.records.find import committed_records, records_in
from imgstudy.report import conclusions, findings
from imgstudy.report.tables import why_short
from imgstudy.report.conclusions import decided_sentences, verdicts_sentence
from imgstudy.report.findings import (Aim, aims, brief_gain, change_groups, changes_in_short, failed_as_published, networks_sentence,
                                      published_gain, target_sentence, transfer_verdict, tuned_pairs, tuned_sentence, tuning_sentence)
from imgstudy.stats.pairs import paired_gain
from imgstudy.stats.published import Verdict
from imgstudy.stats.seeds import synth_record, too_short
from imgstudy.runs import run_to_dict
from imgstudy.study.studies import Row, Study, get_study, study_runs


@pytest.fixture(autouse=True)
def committed():
    with records_in(committed_records()): yield


def trained(frac, seeds=3, **params):
    "Synthetic records of some seeds, of a network of the name `model`."
    model, valid = params.pop('model', 'lenet5'), params.pop('valid', frac)
    records = [synth_record(s, frac, **params) for s in (range(seeds) if isinstance(seeds, int) else seeds)]
    for r in records:
        r.run = dataclasses.replace(r.run, model=model)
        r.history['valid_accuracy'] = [.5, valid]
        r.info['data']['fingerprint'] = 'same'
    return records


def sides(sentence): return re.findall('better with|worse with|higher|lower|no difference|too short to tell', sentence)


rising = trained(.7, schedule='flat')


@pytest.mark.parametrize('published, change, said', [
    (trained(.5), trained(.8), 'too short to tell (the training as published was not better than chance)'),
    (trained(.8), trained(.5), 'too short to tell (the changed one was not better than chance)'),
    (trained(.5), trained(.5), 'too short to tell (both were not better than chance)'),
    (rising, rising, 'too short to tell (both were still learning fast when they stopped)'),
    (trained(.6), trained(.8), 'better with'), (trained(.8), trained(.6), 'worse with'),
    (trained(.8, 1), trained(.5, 1), 'too short to tell (the changed one was not better than chance)'), (trained(.6, 1), trained(.8, 1), 'higher with')])
def test_a_change_of_what_learnt_nothing_is_neither_better_nor_worse(published, change, said, monkeypatch):
    monkeypatch.setattr(findings, 'training_scale', lambda r: 'images')
    line, = changes_in_short({'LeNet-5': {'as published': published, 'a rate': change}})
    assert f'{said}: a rate' in line
    assert len(sides(line)) == 1


def test_committed_changes_are_told_only_where_they_can_be():
    found = change_groups()
    for (what, g), line in zip(found.items(), changes_in_short(found), strict=True):
        told = {k: paired_gain(g['as published'], rs, short=why_short).told for k, rs in g.items() if k != 'as published'}
        parts = re.split('; ', line.split('With one change, ')[1])
        for k, is_told in told.items():
            part = next(p for p in parts if re.search(rf'(: |, ){re.escape(k)} ', p))
            assert part.startswith('too short to tell') == (not is_told), (what, k)
        if not any(told.values()): assert {*sides(line)} == {'too short to tell'}


@pytest.mark.parametrize('theirs, ours, said', [(.5, .8, 'too short to tell (the training as published was not better than chance)'),
                                                (.8, .5, 'too short to tell (ours was not better than chance)'),
                                                (.6, .8, 'higher'), (.8, .6, 'lower')])
def test_tuning_what_learnt_nothing_is_no_gain(theirs, ours, said):
    sentence = tuned_sentence({'lenet5 on digits': ('a', trained(theirs), 'b', trained(ours))})
    assert f'{said}: LeNet-5 on digits'.lower() in sentence.lower() and len(sides(sentence.lower())) == 1


@pytest.mark.parametrize('name, called', [('mlp_l on cifar10', 'large MLP on CIFAR-10'), ('vit on cifar10', 'small ViT on CIFAR-10')])
def test_committed_tuning_is_told_only_where_it_can_be(name, called):
    pairs = tuned_pairs()
    part, = (p for p in re.split('; (?!\\d)', tuned_sentence(pairs)) if called in p)
    _, theirs, _, ours = pairs[name]
    assert ('too short to tell' in part) == (not paired_gain(theirs, ours).told)


@pytest.mark.parametrize('a, b, said', [(.5, .8, 'too short to tell: from scratch it was not better than chance'),
                                        (.5, .5, 'too short to tell: both were not better than chance'), (.7, .7, 'no difference detected')])
def test_a_transfer_from_what_learnt_nothing_wins_nothing(a, b, said, monkeypatch):
    monkeypatch.setattr(findings, 'training_scale', lambda r: 'images')
    sides = trained(a), trained(b)
    for r in sides[1]: r.info['model'] = dict(trained=1, parameters=1)
    assert said in brief_gain(*sides)
    assert 'won none of one comparison' in transfer_verdict({'x': sides})
    assert ('one is too short to tell' in transfer_verdict({'x': sides})) == ('short' in said)


@pytest.mark.parametrize('seeds, said', [(1, 'points, trained only once.'), (3, 'points. Each')])
def test_a_transfer_that_won_once_says_so(seeds, said):
    from imgstudy.report.evidence import transfer_tally
    pairs = {'x': (trained(.6, seeds), trained(.8, seeds))}
    assert said in transfer_verdict(pairs)
    assert (transfer_tally(pairs)['won'], transfer_tally(pairs)['once']) == (1, int(seeds == 1))
    two = transfer_verdict({**pairs, 'y': (trained(.6), trained(.8))})
    assert ('one of them trained only once' in two) == (seeds == 1)


@pytest.mark.parametrize('a, b', [(rising, trained(.9)), (trained(.5), trained(.9))])
def test_what_is_too_short_to_tell_is_not_counted_as_won(a, b):
    from imgstudy.report.evidence import transfer_tally
    tally = transfer_tally({'x': (a, b)})
    assert (tally['n'], tally['won'], tally['lost'], tally['tied'], tally['short']) == (1, 0, 0, 0, 1)


@pytest.mark.parametrize('seeds, said', [(1, ' Each was trained once, so other seeds are open.'), (3, ' 3 trainings each.')])
def test_intervals_over_different_things_are_named_one_by_one(seeds, said, monkeypatch):
    monkeypatch.setattr(findings, 'training_scale', lambda r: 'images')
    gains = iter(['seeds', 'seeds and images'])
    class Told(type(paired_gain(rising, rising))):
        over = property(lambda self: self.repeats)
    def gain(a, b): return Told(**{**vars(paired_gain(a, b)), 'repeats': next(gains)})
    monkeypatch.setattr(findings, 'published_gain', gain)
    line, = changes_in_short({'LeNet-5': {'as published': trained(.6, seeds), 'a': trained(.8, seeds), 'b': trained(.8, seeds)}})
    assert line.endswith(said) and 'Intervals' not in line and 'over seeds and images' in line


@pytest.mark.parametrize('x, low, high, said', [(-1e-5, -.02, 1e-5, '+0.0 points (-2.0 to +0.0)'), (.1, -1e-6, .2, '+10.0 points (+0.0 to +20.0)')])
def test_what_rounds_to_zero_is_plus_zero(x, low, high, said):
    from imgstudy.report.wording import points_span
    assert points_span(x, low, high) == said


@pytest.mark.parametrize('epochs', [8, 20])
def test_how_briefly_they_trained_follows_from_the_records(epochs):
    a, b = trained(.6), trained(.8)
    for r in a: r.history = pd.DataFrame(dict(epoch=range(1, epochs + 1), valid_accuracy=.6))
    assert f'{epochs} epochs' in transfer_verdict({'x': (a, b)})


counts = lambda **n: pd.Series({v: n.get(v.name, 0) for v in Verdict})


@pytest.mark.parametrize('n', [dict(above=5, below=5), dict(below=1), dict(above=2, missing=3), dict(within=1)])
def test_lower_is_not_called_not_reached(n):
    sentence = verdicts_sentence(counts(**n))
    assert 'exceeded' not in sentence and 'not reached' not in sentence
    assert ('lower here' in sentence) == ('below' in n) and ('higher here' in sentence) == ('above' in n)
    assert ('lower is better' in sentence) == bool({'above', 'below'} & {*n})


@pytest.mark.parametrize('metric, published, verdict, said', [
    ('zero_one_loss', .2067, Verdict.below, 'zero-one loss, test images: 0.2067 published, lower here (lower is better): 0.163'),
    ('test_loss', .6291, Verdict.below, 'test loss: 0.6291 published, lower here (lower is better): 0.163'),
    ('test_loss', .1, Verdict.above, 'test loss: 0.1 published, higher here (lower is better): 0.163'),
    ('ms_per_step', 671., Verdict.below, 'ms per step: 671 published, lower here (lower is better): 0.163'),
    ('images_per_s', 671., Verdict.below, 'images per s: 671 published, lower here: 0.163'),
    ('accuracy', .8, Verdict.above, 'accuracy, test images: 80 % published, higher here: 16.3 %'),
    ('accuracy', .163, Verdict.within, 'accuracy, test images: 16.3 % published, within our interval: 16.3 %')])
def test_a_lower_loss_is_better(metric, published, verdict, said, monkeypatch):
    row = dict(row='SGD', id='1', metric=metric, images='test', published=published, verdict=verdict, value=.163, value_low=.15,
               value_high=.17, n=3, over='seeds', note='a note')
    table = pd.DataFrame([row, row | dict(id='2')]).set_index('row') # the same figure in two places
    empty = table[:0]
    monkeypatch.setattr(conclusions, 'answer_table', lambda s, scale: table if s.name == 'dog_breeds' else empty)
    lines = decided_sentences()
    better = f'ours is better in {1 - (said.startswith("test loss: 0.1") or metric == "images_per_s")} of 1.'
    assert len(lines) == 2 and said in lines[0] and (better in lines[1]) == (verdict != Verdict.within)


def test_committed_losses_are_lower_here():
    lines = decided_sentences()[:-1]
    assert lines and not [s for s in lines if 'not reached' in s or 'exceeded' in s or 'zero one' in s]
    assert all(('(lower is better)' in s) == bool(re.search(r'\bloss\b', s)) for s in lines)


def study_of(**rows):
    "A study, and its records: name -> (model, published, records)."
    made = tuple(Row(k, dict(dataset='digits', model=m), as_published=p) for k, (m, p, _) in rows.items())
    return Study('made', 'Which?', 'ours', '', made, expected=(0., 1.), seeds=3), {k: rs for k, (*_, rs) in rows.items()}


def ranked(monkeypatch, **rows):
    study, records = study_of(**rows)
    monkeypatch.setattr(findings, 'study_groups', lambda s, scale='largest': records)
    return networks_sentence(study, 'digits')


def named(model, frac, *args, **kw): return model, False, trained(frac, *args, model=model, **kw)


def test_differences_are_of_the_figures_printed(monkeypatch):
    "Two seeds on one side, one on the other: both means are of the seed that they share."
    cnn, lenet = named('cnn3', .9, 2), named('lenet5', .8, 1)
    sentence = ranked(monkeypatch, a=cnn, b=lenet)
    means = [100*rs[0].metrics['accuracy'] for *_, rs in (cnn, lenet)]
    assert re.findall(r'([\d.]+) % after', sentence) == [f'{m:.1f}' for m in means]
    assert f'{means[1] - means[0]:+.1f} points' in sentence


def test_published_recipes_and_networks_at_chance_are_not_ranked(monkeypatch):
    rows = dict(a=named('cnn3', .9), b=named('lenet5', .8), c=named('mlp_s', .5), d=('mlp_l', True, trained(.7, model='mlp_l')),
                e=named('vit', .7, schedule='flat'))
    assert too_short(rows['e'][2])
    sentence = ranked(monkeypatch, **rows)
    assert 'MLP' not in sentence and 'ViT' not in sentence and len(re.findall('% after', sentence)) == 2
    del rows['b']
    assert ranked(monkeypatch, **rows) is None


def test_epochs_are_those_that_ran(monkeypatch):
    "Two of the thirty planned: early stopping ended them."
    sentence = ranked(monkeypatch, a=named('cnn3', .9, epochs=30), b=named('lenet5', .8, epochs=30))
    assert sentence.count('after 2 epochs') == 2 and '30 epochs' not in sentence


def test_without_validation_images_nothing_is_chosen(monkeypatch):
    rows = dict(a=named('cnn3', .9), b=named('lenet5', .8), c=named('resnet9', .95, valid=np.nan))
    sentence = ranked(monkeypatch, **rows)
    assert 'ResNet' not in sentence.split('. ')[0] and 'without validation images' in sentence
    assert 'without validation images' not in ranked(monkeypatch, **{k: v for k, v in rows.items() if k != 'c'})


def test_the_committed_ranking_has_the_seeds_of_all():
    sentence = networks_sentence()
    shown = [float(x) for x in re.findall(r'([\d.]+) % after', sentence)]
    steps = [float(x) for x in re.findall(r'([+-][\d.]+) points', sentence)]
    assert np.allclose(np.diff(shown), steps, atol=.11) and 'MLP' not in sentence


def chosen(monkeypatch, **records):
    monkeypatch.setattr(findings, 'study_groups', lambda s: records)
    monkeypatch.setattr(findings, 'training_scale', lambda r: 'images')
    return tuning_sentence('made')


@pytest.mark.parametrize('best, second, said', [(.7, .8, 'lower than'), (.8, .7, 'higher than'), (.75, .75, 'no difference detected from')])
def test_a_lead_is_never_negative(best, second, said, monkeypatch):
    "Validation images choose the one that is worse on the test images."
    sentence = chosen(monkeypatch, first=trained(best, valid=.9), second=trained(second, valid=.85), last=trained(.6, valid=.6))
    assert 'by -' not in sentence and 'lead' not in sentence and said in sentence


def test_other_seeds_are_left_out_and_chance_is_said(monkeypatch):
    sentence = chosen(monkeypatch, first=trained(.8, 1), second=trained(.7, 2), last=trained(.5, 2))
    assert 'of other seeds' not in sentence and 'not better than chance' in sentence
    assert 'no seed in common' in chosen(monkeypatch, first=trained(.8, 1), second=trained(.7, [4]), last=trained(.6, 1))


@pytest.mark.parametrize('study, row, scale, is_one', [
    ('tuned', 'MLP (L): as published', 'full', True), ('tuned', 'MLP (L): as published', 'small', False),
    ('tuned', 'CIFAR-10 LeNet-5', 'full', False), ('cifar10_mlp', 'MLP (L)', 'small', False)])
def test_a_published_failure_is_a_result_at_its_size(study, row, scale, is_one):
    records = findings.study_groups(study, scale)[row]
    assert failed_as_published(records) == is_one
    other = trained(.8, len(records))
    gain = paired_gain(trained(.5, len(records)), other)
    assert not gain.told


def test_a_gain_over_a_published_failure_is_told(monkeypatch):
    sides = trained(.5), trained(.8)
    assert not published_gain(*sides).told
    monkeypatch.setattr(findings, 'failed_as_published', lambda records: records is sides[0])
    assert published_gain(*sides).told and not published_gain(*sides[::-1]).told
    assert 'Higher: LeNet-5' in tuned_sentence({'lenet5 on digits': ('a', sides[0], 'b', sides[1])})


@pytest.mark.parametrize('reached, target, said', [
    ((.723, .70, .746, 'seeds', 3), .725, 'missed by 0.2 points, within its interval'), ((.723, .72, .724, 'seeds', 3), .725, 'missed by 0.2 points.'),
    ((.887, .881, .893, 'images', 1), .88, 'reached by one training'), ((.88, .87, .89, 'images', 1), .88, 'reached by one training, but its interval begins below the target'),
    ((.9, .89, .91, 'seeds', 3), .88, ', reached.')])
def test_a_target_is_reached_as_surely_as_its_trainings_say(reached, target, said):
    assert said in target_sentence(Aim('a row', target, reached, {}))


def test_only_recipes_of_ours_were_tried_for_a_target():
    tried = {k for aim in aims() for k in aim.tried}
    assert tried and not [k for k in tried if 'as published' in k or ': ' in k]


@pytest.mark.parametrize('frac, said', [(.5, ''), (.8, ' 3 of 3 trainings from scratch had not settled'), (.5001, '')])
def test_whether_it_settled_is_asked_of_what_learnt(frac, said):
    assert conclusions._settled_words({'a': trained(frac)}).startswith(said) and bool(said) == bool(conclusions._settled_words({'a': trained(frac)}))


@pytest.mark.parametrize('ways, said', [([.7], 'one way to train'), ([.7, .8], '2 ways to train')])
def test_the_median_of_one_is_no_median(ways, said, monkeypatch):
    records = [r for i, frac in enumerate(ways) for r in trained(frac, lr=.01*(i + 1))]
    assert said in conclusions.spread_sentence(records)
    other = [dataclasses.replace(r, run=dataclasses.replace(r.run, dataset='cifar10')) for r in trained(.6, lr=.05)]
    sentence = conclusions.spread_sentence(records + other)
    assert 'CIFAR-10' in sentence and 'digits' not in sentence  # demonstrations, where there is anything else


@pytest.mark.parametrize('whole', [False, True])
def test_one_change_is_told_alike_in_both_places(whole, monkeypatch):
    "In the line of every change and in the sentence on the best one."
    monkeypatch.setattr(findings, 'failed_as_published', lambda records: whole)
    for r in (rs := trained(.5)) + (better := trained(.8)): r.history['valid_loss'] = 1.
    groups = {'LeNet-5': {'as published': rs, 'a rate': better}}
    monkeypatch.setattr(findings, 'training_scale', lambda r: 'images')
    sentence, line = findings.change_sentences(groups)[0], changes_in_short(groups)[0]
    assert ('too short to tell' in sentence) == ('too short to tell' in line) == (not whole)


def test_a_change_of_several_settings_is_no_single_change():
    "All layers from a probe come with a rate, an optimiser and a schedule of their own: what brings the gain, one row cannot tell."
    flat = lambda run: {**(d := run_to_dict(run)), **d['recipe'], 'recipe': None}
    for scale in ('small', 'full'):
        runs, published = study_runs('tuned', scale), {}
        for row in get_study('tuned').rows:
            if row.group is None or row.name not in runs: continue
            own = flat(runs[row.name][0])
            before = published.setdefault(row.group, own)
            differ = {k for k in own if own[k] != before[k]}
            if own['tune'] == 'probe': differ -= {'epochs', 'wd', 'opt', 'schedule', 'patience', 'min_epochs'}  # of no use to a regression
            if own['momentum'] is None: differ -= {'momentum'}  # the optimiser's own
            assert row.changes > 1 or len(differ) <= 1, (row.name, differ)
    both = ['a tenth of the learning rate', 'all layers from the probe', 'linear probe']
    assert findings.single_changes(['as published', *both]) == [both[0], both[2]]
    said = next(s for s in changes_in_short(change_groups()) if s.startswith('ResNet-18 of CNTK'))
    assert 'all layers from the probe (several settings at once) +11.0 points' in said and 'a tenth of the learning rate +10.9' in said
