"Brief predictions give the metrics that full ones give, and scikit-learn's; what was written over or cut short is found."
import json, shutil, warnings
from dataclasses import replace
import numpy as np, pytest
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score
from imgstudy.core import StudyError
from imgstudy.report.plots import confident_errors_table
from imgstudy.records.metrics import brief_scores, calibration_table, compute_metrics, metrics_of_scores
from imgstudy.records.record import (Record, brief_predictions, confidence, copy_record, mean_confusion, n_classes,
                                     pack_predictions, read_record, record_confusion, verify_record, write_record)
from imgstudy.stats.pairs import gain_table
from imgstudy.runs import Run

rng = np.random.default_rng(0)


def learnt(n_out, n=600):
    "True classes, and log-probabilities that lean towards them."
    target = rng.integers(0, n_out, n)
    return target, log_softmax(rng.normal(size=(n, n_out)) + 3*rng.random((n, 1))*np.eye(n_out)[target], axis=1)


def tied(n_out):
    "Logits of three values only."
    target, log_probs = learnt(n_out)
    return target, log_softmax(log_probs.round(-1) + (np.arange(n_out) % 3), axis=1)


def constant(n_out): return rng.integers(0, n_out, 600), np.full((600, n_out), -np.log(n_out))


def all_right(n_out):
    log_probs = learnt(n_out)[1]
    return log_probs.argmax(1), log_probs


def all_wrong(n_out):
    log_probs = learnt(n_out)[1]
    return log_probs.argmin(1), log_probs


def digits():
    "Logistic regression on eight-pixel digits, tested on images that it has not seen."
    x, y = load_digits(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it does not converge in 30 steps
        model = LogisticRegression(max_iter=30).fit(x[:400]/16, y[:400])
    return y[400:], model.predict_log_proba(x[400:]/16)


cases = {f'{f.__name__}-{n}': (f, n) for f in (learnt, tied, constant, all_right, all_wrong) for n in (2, 5, 10, 100, 256, 300)} | {'digits': (digits,)}


@pytest.fixture(params=cases)
def case(request):
    f, *n_out = cases[request.param]
    return f(*n_out)


def record_of(target, log_probs, seed=0):
    packed = pack_predictions([f'{i:04}.png' for i in range(len(target))], target, log_probs)
    info = dict(data=dict(classes=[f'c{i}' for i in range(log_probs.shape[1])], fingerprint='0'*16,
                          counts=dict(train=8, valid=2, test=len(target))))
    return Record(Run('digits', 'lenet5', size=32, seed=seed), 'finished',
                  compute_metrics(*(packed[k] for k in ('target', 'pred', 'log_probs'))), info, predictions=packed)


def copied(record, tmp_path): return read_record(copy_record(read_record(write_record(record, root=tmp_path/'runs')), tmp_path/'kept'))


@pytest.fixture
def kept(tmp_path):
    "A full record and its copy."
    record = record_of(*learnt(10))
    return record, copied(record, tmp_path)


def test_metrics_are_those_of_scikit_learn(case):
    target, log_probs = case
    pred, n_out = log_probs.argmax(1), log_probs.shape[1]
    m = metrics_of_scores(target, pred, brief_scores(target, pred, log_probs), n_out)
    labels = range(n_out)
    assert m['accuracy'] == pytest.approx(accuracy_score(target, pred), abs=1e-9)
    assert m['macro_f1'] == pytest.approx(f1_score(target, pred, average='macro'), abs=1e-9)
    assert m['log_loss'] == pytest.approx(log_loss(target, np.exp(log_probs), labels=labels), abs=1e-6)  # which clips probabilities
    assert ('top5_accuracy' in m) == (n_out > 5)
    if n_out > 5:  # scikit-learn gives a tie to the higher class: drawn, it is settled by a jitter below any difference
        draws = [top_k_accuracy_score(target, log_probs + 1e-9*rng.random(log_probs.shape), k=5, labels=labels) for _ in range(40)]
        assert m['top5_accuracy'] == pytest.approx(np.mean(draws), abs=.015 if np.ptp(draws) else 1e-9)


def test_a_constant_answer_is_among_five_by_luck_only():
    target, log_probs = constant(100)
    assert compute_metrics(target, log_probs.argmax(1), log_probs)['top5_accuracy'] == pytest.approx(5/100, abs=1e-12)


def test_the_brief_form_says_what_the_full_one_says(case, tmp_path):
    record = record_of(*case)
    brief = copied(record, tmp_path)
    verify_record(record)
    verify_record(brief)
    assert 'log_probs' not in brief.predictions and brief.metrics == record.metrics
    again = metrics_of_scores(brief.predictions['target'], brief.predictions['pred'], brief.predictions, n_classes(brief))
    assert again == record.metrics  # to the bit
    assert all(np.array_equal(v, brief.predictions[k]) and v.dtype == brief.predictions[k].dtype
               for k, v in brief_predictions(record.predictions).items())
    assert n_classes(brief) == n_classes(record) and np.array_equal(confidence(brief), confidence(record))
    assert np.array_equal(record_confusion(brief), record_confusion(record))
    assert confident_errors_table(brief).equals(confident_errors_table(record))
    p = record.predictions
    assert np.array_equal(confidence(record), np.exp(p['log_probs'].astype(float))[range(len(p['pred'])), p['pred']])
    a, b = (calibration_table(p['target'], p['pred'], x) for x in (p['log_probs'], brief.predictions['log_prob']))
    assert a.equals(b)


@pytest.mark.parametrize('n_out,bits', [(2, 8), (256, 8), (300, 16)])
def test_class_numbers_are_as_small_as_they_can_be_and_do_not_overflow(n_out, bits, tmp_path):
    target = np.arange(900) % n_out
    brief = copied(record_of(target, np.full((900, n_out), -np.log(n_out))), tmp_path)
    with np.load(brief.path/'predictions.npz') as stored:
        assert stored['target'].dtype == f'uint{bits}' and stored['level'].dtype == ('uint8' if n_out < 256 else 'uint16')
        assert len(stored['target_log_prob']) == (target != 0).sum()
    assert (brief.predictions['n_tied'] == n_out).all() and (brief.predictions['pred'] - brief.predictions['target']).min() == 1 - n_out


def test_both_forms_are_compared_with_each_other(tmp_path):
    full = [record_of(*learnt(10), seed=s) for s in range(2)]
    brief = [copied(r, tmp_path) for r in full]
    gain = gain_table(full, brief).iloc[0]
    assert gain.gain == 0 and np.array_equal(mean_confusion(full), mean_confusion([full[0], brief[1]]))


def test_equal_records_give_equal_bytes(kept, tmp_path):
    record, brief = kept
    for source, name in ((record, 'second'), (brief, 'third')):  # of the full one again, and of the copy
        again = copy_record(source, tmp_path/name)
        assert sorted(p.name for p in again.iterdir()) == ['predictions.npz', 'record.json']
        for p in again.iterdir(): assert p.read_bytes() == (brief.path/p.name).read_bytes()


def test_other_files_stay_the_same_or_behind(kept, tmp_path):
    record = kept[0]
    for name in ('history.csv', 'a.webp', 'b.png', 'weights.safetensors'): (record.path/name).write_text(f'{name}\r\n')
    copy = copy_record(record, tmp_path/'other', also=('*.webp', '*.safetensors'))
    assert sorted(p.name for p in copy.iterdir()) == ['a.webp', 'history.csv', 'predictions.npz', 'record.json']
    for name in ('a.webp', 'history.csv'): assert (copy/name).read_bytes() == (record.path/name).read_bytes()
    first, again = (json.loads((p/'record.json').read_text()) for p in (record.path, copy))
    assert again.pop('seal')['first'] == first.pop('seal') and again == first


@pytest.mark.parametrize('metric', ['accuracy', 'log_loss', 'top5_accuracy', 'calibration_error'])
def test_a_changed_metric_is_found(metric, kept):
    path = kept[1].path/'record.json'
    said = json.loads(path.read_text())
    said['metrics'][metric] += 1e-6
    path.write_text(json.dumps(said))
    with pytest.raises(StudyError, match=f'{metric} is recorded as'): verify_record(read_record(path.parent))


@pytest.mark.parametrize('array,change', [('pred', lambda v, wrong: np.where(np.arange(len(v)) == wrong, (v + 1) % 10, v)),
                                          ('pred', lambda v, wrong: v + np.uint8(20)),
                                          ('target', lambda v, wrong: np.roll(v, 1)),
                                          ('log_prob', lambda v, wrong: v*np.float16(1.1)),
                                          ('target_log_prob', lambda v, wrong: v*np.float16(1.1)),
                                          ('target_log_prob', lambda v, wrong: v[:-1]),
                                          ('ahead', lambda v, wrong: np.zeros_like(v)), ('level', lambda v, wrong: v + np.uint8(1))])
def test_a_changed_prediction_is_found(array, change, kept):
    path = kept[1].path/'predictions.npz'
    with np.load(path) as f: stored = dict(f)
    stored[array] = change(stored[array], np.flatnonzero(stored['pred'] != stored['target'])[0])
    np.savez_compressed(path, **stored)
    with pytest.raises(StudyError, match='run it again'): verify_record(read_record(path.parent))


@pytest.mark.parametrize('form', [0, 1], ids=['full', 'brief'])
def test_half_a_file_is_told_of(form, kept):
    path = kept[form].path/'predictions.npz'
    whole = path.read_bytes()
    for n in [0, 1, 3, 100, *range(500, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:n])
        with pytest.raises(StudyError, match='is damaged or of another version .*delete the folder and run it again'): read_record(path.parent)


@pytest.mark.parametrize('form', [0, 1], ids=['full', 'brief'])
def test_a_flipped_bit_is_told_of_or_does_not_matter(form, kept):
    path = kept[form].path/'predictions.npz'
    whole, told = path.read_bytes(), 0
    for i in range(0, len(whole), len(whole)//300):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1:])
        try:
            verify_record(again := read_record(path.parent))
            assert all(np.array_equal(v, again.predictions[k]) for k, v in kept[form].predictions.items())
        except StudyError: told += 1
    assert told > 250


def test_what_does_not_hold_is_not_kept(kept, tmp_path):
    record = kept[0]
    lie = replace(record, predictions=record.predictions | dict(pred=(record.predictions['pred'] + 1) % 10))
    with pytest.raises(StudyError, match='is recorded as'): copy_record(lie, tmp_path/'lies')
    assert not list((tmp_path/'lies').iterdir())


def test_a_copy_never_costs_weights(kept, tmp_path):
    record, brief = kept
    (record.path/'weights.safetensors').write_bytes(b'weights')
    for source in (record, brief):
        with pytest.raises(StudyError, match='copy into another folder'): copy_record(source, record.path.parent)
    with pytest.raises(StudyError, match='copy into another folder'): copy_record(brief, brief.path.parent)
    assert (record.path/'weights.safetensors').read_bytes() == b'weights'


def test_a_failed_record_is_copied_as_it_is_but_never_over_a_finished_one(kept, tmp_path):
    record, brief = kept
    failed = replace(record, run=replace(record.run, seed=1), outcome='failed', error='disk full', metrics={}, predictions={})
    folder = write_record(failed, root=tmp_path/'failed')
    copy = copy_record(read_record(folder), tmp_path/'kept')
    assert [p.name for p in copy.iterdir()] == ['record.json'] and read_record(copy).error == 'disk full'
    shutil.rmtree(folder)
    same = read_record(write_record(replace(failed, run=record.run), root=tmp_path/'failed'))
    assert copy_record(same, tmp_path/'kept') == brief.path and read_record(brief.path).outcome == 'finished'
