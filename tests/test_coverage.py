"The 113 published items: complete beside the texts, and each in the state that the records show."
import os, re
from pathlib import Path
import pandas as pd, pytest
from imgstudy.core import StudyError
from imgstudy.references import published_items, references
from imgstudy.records.find import committed_records, records_in
from imgstudy.report import coverage as module
from imgstudy.report.coverage import coverage, coverage_states, coverage_tally, item_rows
from imgstudy.stats.seeds import synth_record
from imgstudy.study.studies import study_runs

top = Path(__file__).parent.parent
captions = pd.read_csv(top/'report/captions.csv', dtype=str)
items = published_items()
texts = Path(os.environ.get('IMGSTUDY_DATA') or '-').parent/'seeds'
of_report = lambda n: items[items.id.str.startswith(f'{n}.')]


def test_every_numbered_table_and_figure_has_an_item():
    for c in captions.itertuples():
        assert any(c.place in i.place.split('; ') for i in of_report(c.report).itertuples()), c


def test_every_place_of_an_item_with_a_number_is_a_caption():
    for i in items.itertuples():
        known = {*captions.place[captions.report == i.id[0]]}
        assert {p for p in i.place.split('; ') if re.match(r'(table|figure) \d', p)} <= known, i


@pytest.mark.skipif(not texts.is_dir(), reason='the five texts are not at hand')
@pytest.mark.parametrize('text', [*captions.text.unique(), 'cifar10_scratch_vs_resnet18.txt'])
def test_the_list_of_captions_is_that_of_the_texts(text):
    "What a text quotes within a picture, in bold, is none of its own; one table has no number; one text has two figures 8."
    found = re.findall(r'^(Fig\.|Figure|Table) ?(\d+[ab]?)[.: ](?! \*\*)', (texts/text).read_text(), re.M)
    found = [('table' if kind == 'Table' else 'figure') + f' {n}' for kind, n in found]
    listed = [p for p in captions.place[captions.text == text] if 'unnumbered' not in p]
    assert [re.sub(r' \(.*', '', p) for p in listed] == found
    assert ('table 4 (unnumbered)' in [*captions.place[captions.text == text]]) == text.startswith('cats')
    assert (found.count('figure 8') == 2) == text.startswith('dog')


def test_the_kinds_of_the_113_items():
    assert items.kind.value_counts().to_dict() == dict(result=102, quoted=6, data=3, context=1, code=1)
    assert items.id.is_unique and [*items.id] == sorted(items.id)


def test_every_item_of_ours_names_rows_and_a_metric_that_there_are():
    for i in items.itertuples():
        if i.kind in ('quoted', 'context', 'code'): assert not i.row and not i.metric
        elif i.metric in ('channels', 'samples', 'class_counts'): assert i.row in ('cats_vs_dogs', 'cifar100', 'stanford_dogs', 'stanford_dogs20')
        else:
            assert i.metric == 'parameters' or all(m in module._held for m in i.metric.split()), i
            parts = [p.strip() for p in i.row.split(' | ')]
            assert len(item_rows(i)) >= len(parts), f'{i.id}: a part of {i.row!r} is no row of {i.study}'


def test_numbers_belong_to_items_of_their_study():
    study = references().set_index('id').study
    for i in items.itertuples():
        for id in i.references.split(): assert i.kind == 'quoted' or study[id] in (i.study, i.study.replace('optimizers', 'architectures')), id


needed = dict(zip(items.id, items.needs))
@pytest.mark.parametrize('id', [id for id, n in needed.items() if n])
def test_what_cannot_be_trained_says_why(id):
    assert re.search('at hand|GPU', needed[id])


@pytest.fixture
def made(monkeypatch):
    "Records of the runs for which `made` returns true, as if they had been trained."
    chosen = []
    def find(runs):
        found = [r for r in runs if chosen and chosen[0](r)]
        return [_record(r, i) for i, r in enumerate(found)]
    monkeypatch.setattr(module, 'find_records', find)
    return chosen


def _record(run, i):
    r = synth_record(i, .7)
    r.run = run
    r.info['cost'] = dict(seconds=60.)
    r.history[['train_loss', 'valid_loss', 'lr']] = 1.
    return r


state = lambda id, study: coverage(study).set_index('id').state[id]


@pytest.mark.parametrize('study, id', [('cats_dogs_optimizers', '1.03'), ('cats_dogs_optimizers', '1.09'), ('cifar10_mlp', '3.02'), ('cifar100_schedules', '4.18')])
def test_full_needs_every_printed_cell(made, study, id):
    rows = item_rows(next(items[items.id == id].itertuples()))
    cells = {r for row in rows for r in study_runs(study, 'full')[row]}
    one = next(iter(cells))
    made[:] = [lambda r: r in cells]
    assert state(id, study) == 'full'
    if one.folds:
        made[:] = [lambda r: r in cells and r.fold != 3]
        assert state(id, study) == 'none'
        small = {r for row in rows for r in study_runs(study, 'small')[row]}
        made[:] = [lambda r: r in small or r in cells and r.fold != 3]
        assert state(id, study) == 'smaller'
    elif len(rows) > 1:
        made[:] = [lambda r: r in {*study_runs(study, 'full')[rows[0]]}]
        assert state(id, study) == 'smaller'


@pytest.mark.parametrize('seeds, wanted', [(1, 'none'), (2, 'none'), (3, 'full')])
def test_that_seeds_matter_needs_three(made, seeds, wanted):
    cells = {r for rs in study_runs('cifar10_cnn_augmentation', 'full', seeds).values() for r in rs}
    made[:] = [lambda r: r in cells]
    assert state('3.24', 'cifar10_cnn_augmentation') == wanted


@pytest.mark.parametrize('id, study, reason', [('4.03', 'cifar100_baseline', 'no train_accuracy'), ('2.15', 'dog_breeds', 'no ms_per_step'),
                                               ('2.06', 'dog_breeds', 'no train_accuracy'), ('4.21', 'cifar100_deeper', 'no train_accuracy')])
def test_a_record_must_hold_what_was_published(made, id, study, reason):
    made[:] = [lambda r: True]
    found = coverage(study).set_index('id').loc[id]
    assert found.state == 'none' and reason in found.reason


def test_without_records_nothing_is_trained(tmp_path):
    with records_in(tmp_path): table = coverage()
    assert {*table.metric[table.state == 'full']} == {'parameters'} and 'smaller' not in {*table.state}
    assert len(table) == 113 and (table.reason != '').all() and {*table.columns} >= {*'id study place shown kind state reason row metric'.split()}
    costs = table.reason[table.reason.str.contains('GPU minutes')]
    assert len(costs) >= 8


gpu = [i for i in items.itertuples() if 'GPU' in i.needs and i.kind == 'result']
@pytest.mark.parametrize('item', gpu, ids=[i.id for i in gpu])
@pytest.mark.parametrize('scale', ['small', 'full'])
def test_what_waits_for_a_gpu_names_its_minutes(made, scale, item):
    "Whether nothing of it was trained or something smaller; not once it is trained as published."
    made[:] = [lambda r: r in {r for rs in study_runs(item.study, scale).values() for r in rs}]
    found = coverage(item.study).set_index('id').loc[item.id]
    assert found.state == dict(small='smaller').get(scale, scale)
    assert ('at full scale about' in found.reason and 'GPU minutes' in found.reason) == (scale == 'small')


@pytest.mark.parametrize('id, words', [('3.15', 'pixels 64 for 256'), ('3.18', 'weights of CNTK'), ('1.18', 'GPU minutes'), ('1.21', 'GPU minutes'), ('2.01', 'only 24 of the 120 breeds are at hand')])
def test_the_committed_reasons(id, words):
    with records_in(committed_records()): assert words in coverage().set_index('id').reason[id]


def test_the_tally_counts_every_item_once():
    with records_in(committed_records()): table = coverage()
    tally = coverage_tally(table)
    assert tally.loc['all'].tolist() == [*(table.state.value_counts().reindex(coverage_states, fill_value=0)), 113]
    assert tally.drop('all').sum().tolist() == tally.loc['all'].tolist() and [*tally.columns] == [*coverage_states, 'items']


def test_an_unknown_study_is_named():
    with pytest.raises(StudyError, match="Did you mean 'cifar10_mlp'"): coverage('cifar_mlp')


@pytest.mark.parametrize('study', ['tuned', 'lenet_ladder', 'vit_ladder', 'transfer'])
@pytest.mark.parametrize('listed', [False, True])
def test_a_study_that_repeats_no_report_has_nothing_to_count(study, listed):
    from imgstudy import cli
    with pytest.raises(StudyError, match=f'listed for the study {study!r}.*such as cifar10_mlp'): cli.coverage(study=study, items=listed)


@pytest.mark.parametrize('study, id, words', [
    ('cats_dogs_optimizers', '1.04', 'image size and epochs'), ('cifar10_scratch_vs_resnet18', '5.03', 'epochs'),
    ('cifar10_scratch_vs_resnet18', '5.02', 'image size and epochs'), ('cifar100_baseline', '4.01', None), ('cifar10_mlp', '3.02', None)])
def test_full_scale_says_what_the_report_does_not_state(made, study, id, words):
    made[:] = [lambda r: r in {r for rs in study_runs(study, 'full').values() for r in rs}]
    found = coverage(study).set_index('id').loc[id]
    assert found.state == 'full' and ('own choice' in found.reason) == bool(words)
    if words: assert f'; {words} not said there, our own choice' in found.reason
