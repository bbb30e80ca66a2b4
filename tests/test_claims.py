"The claims of the reports: the verdicts of full.html are those of the committed records, and follow a changed record."
import html, re
from pathlib import Path
import pytest
from imgstudy.records.find import find_records, records_in
from imgstudy.report.tested import claims_table
from imgstudy.stats.pairs import paired_gain, with_partners
from imgstudy.study.studies import studies, study_runs

top = Path(__file__).parent.parent
rows = {'AdamW is more accurate than SGD': ('cats_dogs_optimizers', 'SGD, momentum 0.9', 'cats_dogs_optimizers', 'AdamW'),
        'Random erasing hurts it': ('cifar10_cnn_augmentation', 'batch 128, rate 0.001, L2 0, dropout 0.5, basic',
                                    'cifar10_cnn_augmentation', 'batch 128, rate 0.001, L2 0, dropout 0.5, erasing'),
        'Basic augmentation helps the CNN': ('cifar10_cnn_augmentation', 'batch 128, rate 0.001, L2 0, dropout 0.5, none',
                                             'cifar10_cnn_augmentation', 'batch 128, rate 0.001, L2 0, dropout 0.5, basic'),
        'With one cycle LeNet-5 beats the perceptron': ('cifar100_schedules', '2-layer perceptron, one cycle',
                                                        'cifar100_schedules', 'LeNet-5, one cycle')}


def claimed(page):
    "Claim -> the cells beside it: published, ours, difference, verdict."
    page = html.unescape(page).replace('\u00a0', ' ').replace('\u2212', '-')
    lines = [re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', row, re.S) for row in re.findall(r'<tr>(.*?)</tr>', page, re.S)]
    return {cells[0]: cells[1:] for cells in lines if len(cells) == 5 and '\u2192' in cells[1]}


@pytest.fixture(scope='module')
def said(): return claimed((top/'report/full.html').read_text(encoding='utf-8'))


@pytest.mark.parametrize('claim', rows)
def test_verdicts_are_those_of_the_records(said, claim):
    a, row, b, other = rows[claim]
    with records_in(top/'report/records'):
        sides = with_partners(*(find_records(study_runs(s, 'full')[r]) for s, r in ((a, row), (b, other))))
        gain = paired_gain(*sides)
    published, ours, difference, verdict = said[claim]
    first, second = (float(x) for x in re.findall(r'([\d.]+) %', published))
    assert difference.startswith(f'{100*gain.difference:+.1f} points')
    agree = gain.difference*(second - first) > 0
    assert verdict.split(',')[0] == ('no difference detected' if not gain.sign else 'holds' if agree else 'does not hold')
    assert verdict.endswith('one training each') == (gain.n_pairs == 1)


def test_accuracies_and_difference_are_of_the_same_trainings():
    "A seed that one side alone has counts on neither."
    with records_in(top/'report/records'): table = claims_table(*studies.values())
    assert sum(table.difference != '') >= 6
    for r in table[table.difference != ''].itertuples():
        first, second = (float(x) for x in re.findall(r'([\d.]+) %', r.ours))
        assert abs(second - first - float(r.difference.split()[0])) < .11, r


def test_what_was_not_trained_is_not_judged(said):
    assert len(said) >= 10 and any('not trained' in cells[1] for cells in said.values())
    for _, ours, difference, verdict in said.values(): assert ('not trained' in ours) == (verdict == 'not tested') == (difference == '')


@pytest.mark.parametrize('row, wanted', [
    ('<tr><th>a</th><td>1 % → 2 %</td><td>b</td><td>c</td><td>d</td></tr>', {'a': ['1 % → 2 %', 'b', 'c', 'd']}),
    ('<tr><th>a</th><td>1 %</td><td>b</td><td>c</td><td>d</td></tr>', {}),
    ('<tr><th>a</th><td>1 % → 2 %</td></tr>', {})])
def test_claims_are_found(row, wanted):
    assert claimed(row) == wanted


def test_of_several_published_accuracies_a_claim_names_the_best():
    "The report gives ResNet-18 83 % and 86 %; the CNN has 83 %."
    with records_in(top/'report/records'): table = claims_table('cifar10_scratch_vs_resnet18')
    assert table.published.tolist() == ['83 % → 86 %']
