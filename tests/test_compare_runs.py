"Two runs, image by image."
import numpy as np, pytest
from dataclasses import replace
from imgstudy.records.metrics import compute_metrics
from imgstudy.records.record import pack_predictions
from imgstudy.report.compare import changed_cells_table, run_comparison
from imgstudy.stats.seeds import synth_record


def with_answers(like, pred, target):
    "`like` with these answers to these classes, of three."
    packed = pack_predictions([f'{i}.png' for i in range(len(target))], np.array(target), np.log(np.eye(3)[pred]*.7 + .1))
    info = like.info | dict(data=dict(classes=[*'ABC'], counts=dict(train=8, valid=5, test=len(target))))
    return replace(like, predictions=packed, metrics=compute_metrics(np.array(target), np.array(pred), packed['log_probs']), info=info)


target = [0]*6 + [1]*6 + [2]*6


@pytest.mark.parametrize('first, second, pairs', [
    (target, [1]*3 + target[3:], [('A', 'B', 3)]), # three right answers fewer are three confusions more
    ([1]*3 + target[3:], target, [('A', 'B', -3)]),
    ([1, 1] + target[2:], [2, 2] + target[2:], [('A', 'B', -2), ('A', 'C', 2)]), # no more right answers, others wrong
    (target, target, [])])
def test_a_right_answer_is_no_confusion(first, second, pairs, monkeypatch):
    a, b = (with_answers(synth_record(s, .7), p, target) for s, p in ((0, first), (1, second)))
    for other in ('comparison_text', 'runs_differ_table', 'outcomes_table', 'classwise_change_table', 'with_intervals', 'disagreements_table', 'costs_table'):
        monkeypatch.setattr(f'imgstudy.report.compare.{other}', lambda *args: []) # they need records of real trainings
    found = dict(run_comparison(a, b))['Confusions that changed most']
    assert [*zip(found['true'], found['predicted'], found['change'])] == pairs
    right = sum(x == t for x, t in zip(second, target)) - sum(x == t for x, t in zip(first, target))
    cells = changed_cells_table(a, b)
    assert cells.change[cells.true == cells.predicted].sum() == right, 'the picture shows right answers as well'
