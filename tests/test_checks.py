"""Each check of one training, on a training that was made to have the fault.

Two faults are made up from a trained record, because no training of seconds has them for certain: a stuck sibling, and a
head that was drawn far too large."""
import math
from dataclasses import replace

import numpy as np
import pytest
from faults import all_found, errors, healthy, images, noise, root, small, trained # noqa: F401
from imgstudy.core import StudyError
from imgstudy.models.register import create_model, models
from imgstudy.models.zoo import create_light
from imgstudy.records.record import Record, read_record
from imgstudy.report import checks, input_checks
from imgstudy.report.diagnose import diagnose
from imgstudy.runs import run_id
from imgstudy.study.create import create_run
from safetensors.torch import save_file


def test_a_severity_is_a_string():
    assert checks.Severity.warning == 'warning' and f'{checks.Severity.error}' == 'error'
    assert [*checks.Severity] == ['info', 'warning', 'error']


def test_evidence_holds_plain_numbers():
    evidence = checks.Evidence('final training loss', np.float32(.5), np.int64(2))
    assert [type(evidence.value), type(evidence.limit)] == [float, float]
    assert str(evidence) == 'final training loss 0.5 (limit 2)'


@pytest.mark.parametrize('error,name', [
    ('Diverged: The loss became nan', 'Diverged'), ('OSError: disk: full', 'OSError'), (None, '')])
def test_error_class(error, name):
    assert checks.error_class(Record(None, 'failed', error=error)) == name


@pytest.mark.parametrize('params', [
    dict(opt='sgd', lr=1e-7, epochs=3), dict(opt='sgd', lr=1e-4, epochs=5, schedule='flat'), dict(lr=1e-7, epochs=3),
    dict(opt='sgd', lr=1e-3, epochs=4, schedule='cosine')], ids=str)
def test_rate_too_low(trained, params):
    record = trained(**params)
    assert 'rate too low' in errors(record)
    assert not {'rate too high', 'learns nothing', 'overfits', 'batch norm drifts'} & all_found(record)


@pytest.mark.parametrize('params', [
    dict(opt='sgd', lr=10., epochs=4, schedule='flat'), dict(lr=.3, epochs=5, schedule='flat'),
    dict(lr=1., epochs=4)], ids=str)
def test_rate_too_high(trained, params):
    record = trained(**params)
    assert 'rate too high' in errors(record)
    assert 'rate too low' not in all_found(record)


def test_a_failed_run_is_diagnosed_from_its_error(trained, root):
    params = dict(opt='sgd', lr=1e8, model='lenet5_bn', epochs=2)
    with pytest.raises(StudyError): trained(**params)
    record = read_record(root/run_id(create_run(**small | params)))
    assert record.outcome == 'failed' and errors(record) == {'diverged'}
    table = diagnose(record)
    assert 'The loss became' in table.text[0] and 'Lower the peak learning rate' in table.remedy[0]
    other = Record(record.run, 'failed', error='OSError: disk')
    assert 'Fix the cause of the error' in diagnose(other, siblings=[record], others=[record], claim=.1).remedy[0]
    assert diagnose(Record(record.run, 'failed')).text[0] == 'The run failed: unknown error'


def test_a_sibling_that_died(healthy, trained):
    "Made up: the stuck sibling is given the run of the healthy training, with another seed."
    dead = trained(opt='sgd', lr=10., epochs=4, schedule='flat')
    sibling = replace(dead, run=replace(healthy.run, seed=7))
    assert 'rate too high' in errors(healthy, siblings=[sibling])
    assert 'seed 7' in diagnose(healthy, siblings=[sibling]).text[0]


def test_imagenet_stem(trained):
    record = trained(size=32, subset=50, epochs=1, bs=50, model='mobilenetv2', normalize='dataset')
    assert 'ImageNet stem' in errors(record)
    assert 'ImageNet stem' in errors(replace(record, run=replace(record.run, model='resnet18')))
    assert 'mobilenetv2_32' in diagnose(record).set_index('check').remedy['ImageNet stem']
    for model, size in (('resnet18_32', 32), ('resnet18', 224), ('mobilenetv2_32', 32)):
        assert input_checks.imagenet_stem(replace(record, run=replace(record.run, model=model, size=size))) is None


def test_every_small_model_is_fit_for_its_own_size():
    for name, spec in [(n, s) for n, s in models.items() if s.size <= 64]:
        net = create_light(name, 10, size=spec.size)
        n, _, stem = input_checks.starved(net, spec.size)
        assert not n or stem < 2, name


@pytest.mark.parametrize('normalize,severity', [('none', 'error'), ('imagenet', None)])
def test_wrong_normalisation(trained, root, normalize, severity):
    "Random weights in a file will do: the register says what normalisation the model expects."
    file = root/'mobilenet.safetensors'
    weights = create_model('mobilenetv2_32', 7).state_dict()
    if not file.exists(): save_file({k: v.contiguous() for k, v in weights.items()}, file)
    record = trained(model='mobilenetv2_32', init=f'file:{file}', normalize=normalize, subset=50, epochs=1, bs=50)
    found = diagnose(record).set_index('check').severity
    assert found.get('normalisation') == severity


def test_normalisation_of_a_run_that_weights_came_from(trained, root):
    source = trained(subset=50, epochs=1, normalize='half')
    tuned = [trained(subset=50, epochs=1, init=f'run:{source.id}', normalize=n) for n in ('half', 'none')]
    assert [('normalisation' in errors(r)) for r in tuned] == [False, True]
    lost = replace(tuned[1], path=root/'elsewhere'/'x')
    assert input_checks.wrong_normalisation(lost) is None


def test_batch_norm_drifts(trained):
    "Batch norm in every block, a high learning rate and few steps: the running statistics fall behind."
    record = trained(model='timm:test_efficientnet', size=32, normalize='dataset', subset=100, lr=1e-2, epochs=8,
                     schedule='flat')
    assert record.history.train_loss.iloc[-1] < .3 and record.history.valid_loss.max() > 5
    found = diagnose(record).set_index('check').text
    assert 'running statistics' in found['batch norm drifts'] and 'overfits' not in found
    assert 'batch norm drifts' not in all_found(trained(model='lenet5_bn', epochs=10, lr=3e-3))


def test_not_converged(trained):
    assert 'not converged' in all_found(short := trained(epochs=1, lr=1e-4))
    assert 'A single epoch' in ' '.join(diagnose(short).text)
    record = trained(epochs=6, lr=4e-4, schedule='flat')
    assert 'not converged' in errors(record)
    assert 'not converged' not in all_found(trained(epochs=12, lr=3e-3, schedule='flat', subset=600))


def test_underfits(trained):
    record = trained(epochs=3, lr=2e-3)
    assert 'underfits' in all_found(record) and 'overfits' not in all_found(record)


def test_overfits(trained, root):
    "Images of noise, memorised."
    folder = noise(root/'noise')
    record = trained(dataset=f'folder:{folder}', epochs=25, lr=3e-3, schedule='flat', **images)
    assert record.history.train_loss.iloc[-1] < .3 and 'overfits' in errors(record)
    few = trained(subset=30, epochs=30, bs=10)
    assert 'overfits' in all_found(few)


def test_learns_nothing(trained, root):
    "Images that are all the same, at a reasonable learning rate."
    folder = noise(root/'grey', change=lambda rng: np.full((16, 16, 3), 99, dtype=np.uint8))
    record = trained(dataset=f'folder:{folder}', epochs=6, lr=1e-3, **images)
    assert 'learns nothing' in errors(record)
    assert not {'rate too low', 'rate too high'} & all_found(record)


def test_l2_in_adam(trained):
    assert 'L2 in Adam' in errors(trained(opt='adam', wd=1., epochs=4))
    mild = diagnose(trained(opt='adam', wd=1e-3, epochs=4)).set_index('check').severity
    assert mild['L2 in Adam'] == 'warning'
    assert 'L2 in Adam' not in all_found(trained(opt='adamw', wd=1., epochs=4))


def test_one_answer_for_everything(trained):
    assert 'classes never answered' in errors(trained(opt='sgd', lr=10., epochs=4, schedule='flat'))


def test_early_stopping_goes_back(trained, root):
    "The weights of the best epoch are kept, so nothing is overfitted."
    record = trained(dataset=f'folder:{root}/noise', epochs=25, lr=3e-3, schedule='flat', patience=2, **images)
    assert not any('rose to' in s for s in diagnose(record).text)


def test_without_predictions_or_a_known_model(healthy):
    bare = replace(healthy, predictions={})
    assert checks.chance_loss(bare) == pytest.approx(math.log(10))
    assert not errors(bare)
    gone = replace(healthy, run=replace(healthy.run, model='no_such_model'))
    assert not errors(gone)


def test_mixed_images_hide_the_training_loss(trained):
    assert 'overfits' not in all_found(trained(epochs=4, mixup=.4))


def test_head_starts_badly(trained):
    "Made up: the losses of a transfer begin as those on cats and dogs did, at twenty times what guessing costs."
    source = trained(epochs=3, lr=5e-3)
    record = trained(init=f'run:{source.id}', epochs=3, lr=1e-3)
    assert 'head starts badly' not in all_found(record)
    far = record.history.assign(train_loss=[46., 3.1, 2.5], valid_loss=[25., 4., 2.6])
    found = diagnose(replace(record, history=far)).set_index('check')
    assert found.severity['head starts badly'] == 'error' and "tune='probe_then_all'" in found.remedy['head starts badly']
    assert 'not converged' not in found.index, 'the same is not said twice'
    scratch = diagnose(replace(source, history=far)).set_index('check')
    assert 'not converged' in scratch.index and 'head starts badly' not in scratch.index
