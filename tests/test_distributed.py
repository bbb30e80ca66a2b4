"One training by two processes of this machine is that of one; what cannot be spread, and what fails, is one line."
import dataclasses, json, os, subprocess, sys
import numpy as np, pytest, torch
from safetensors.torch import load_file
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.data.loaders import create_dls, create_test_dl
from imgstudy.data.split import load_data
from imgstudy.distributed import Team, check_distributed, part_of_all, part_of_batches, part_size, split_dls
from imgstudy.records.record import load_model, read_record, read_records, verify_record
from imgstudy.runs import run_to_dict
from imgstudy.study.create import create_run
from imgstudy.training.train import train

run = create_run(dataset='digits', model='lenet5', epochs=2, subset=320, bs=32, opt='sgd', lr=.05, augment='none', precision='fp32',
                 class_weights='balanced')  # the loss of a part is not that of the batch

script = '''
import json, os, sys
import imgstudy.distributed as d
from imgstudy.cli import main
from imgstudy.runs import run_from_dict
run, root, broken = sys.argv[1:]
d.planned_runs = lambda a: [run_from_dict(json.loads(run))]  # the command has no option for the optimiser
d.Checkpoint.every = 0.  # seconds: a checkpoint after each epoch
before_batch = d.Together.before_batch
def fail(self):
    if self.training and (self.epoch, self.iter) == (1, 3): raise MemoryError('the memory of this machine is full')
    before_batch(self)
if os.environ['RANK'] == broken: d.Together.before_batch = fail
sys.argv[1:] = ['train', 'digits', '--model', 'lenet5', '--distributed', '--root', root]
main()
'''


launchers = dict(
    torchrun='torch.distributed.run --nproc_per_node 2 --master_addr 127.0.0.1 --master_port 0 --rdzv_backend c10d --rdzv_endpoint 127.0.0.1:0',
    accelerate='accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0')


def launch(tmp_path, run, root, broken='none', by='torchrun'):
    file = tmp_path/'script.py'
    file.write_text(script)
    words = [sys.executable, '-m', *launchers[by].split(), file, json.dumps(run_to_dict(run)), root, broken]
    return subprocess.run(words, capture_output=True, text=True, timeout=500, env=os.environ | dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES=''))


@pytest.mark.slow # two launches, about 40 s
def test_two_processes_are_one_and_go_on_after_a_failure(tmp_path):
    one, done = train(run, root=tmp_path/'one'), launch(tmp_path, run, tmp_path/'two', broken='1')
    said = [line for line in done.stderr.splitlines() if line.startswith('imgstudy:')]
    assert done.returncode and len(said) == 1, done.stderr
    assert said[0].startswith('imgstudy: process 1 of 2: MemoryError: ') and said[0].endswith('the memory of this machine is full')
    failed, = read_records(tmp_path/'two')
    assert failed.outcome == 'failed' and 'memory of this machine' in failed.error
    done = launch(tmp_path, run, tmp_path/'two')
    assert done.returncode == 0, done.stderr
    assert 'continuing after epoch 1 of 2' in done.stdout and done.stdout.count('Accuracy on images it has not seen') == 1
    two, = read_records(tmp_path/'two')
    verify_record(two)
    assert two.id == one.id and [two.info['model'][k] for k in ('processes', 'images_per_process')] == [2, 16]
    a, b = (load_file(r.path/'weights.safetensors') for r in (one, two))
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-5  # 320 images, 32 in a batch, 2 epochs: 20 steps
    assert abs(one.metrics['accuracy'] - two.metrics['accuracy'])*one.metrics['n'] < 1.01
    assert [*one.predictions['path']] == [*two.predictions['path']]
    for k in ('train_loss', 'valid_loss', 'valid_accuracy'): assert np.allclose(one.history[k], two.history[k], atol=1e-3)
    assert not [*(tmp_path/'two').glob('.*.checkpoint')]


@pytest.mark.slow # a launch each, about 20 s
@pytest.mark.parametrize('ema, by', [(None, 'torchrun'), (.9, 'accelerate')])
def test_predictions_are_those_of_the_saved_weights_with_batch_norm(ema, by, tmp_path):
    if by == 'accelerate': pytest.importorskip('accelerate')
    norm = create_run(dataset='digits', model='lenet5_bn', epochs=1, subset=320, bs=32, lr=.01, augment='none', precision='fp32', ema=ema)
    done = launch(tmp_path, norm, tmp_path/'two', by=by)
    assert done.returncode == 0, done.stderr
    record, data = read_records(tmp_path/'two')[0], load_data(norm)
    assert record.info['model']['processes'] == 2
    net, dl = load_model(record), create_test_dl(create_dls(norm, data), data)
    with torch.no_grad(): again = torch.cat([net(x.cpu()) for x, _ in dl]).log_softmax(1).numpy()
    assert (again.argmax(1) != record.predictions['pred']).sum() <= 1 # rounding
    stored = record.predictions['log_probs']
    assert (abs(again - stored.astype(float)) - np.spacing(abs(stored))/2).max() < 1e-4 # beyond the rounding of half precision


def test_a_size_of_batch_that_there_are_images_for():
    with pytest.raises(StudyError, match='33 images .* start 3 of them, or take --bs 32'): part_size(33, 2, 33)
    with pytest.raises(StudyError, match='--bs 34'): part_size(33, 2, 34)
    few = create_run(dataset='digits', model='lenet5', subset=55, bs=64, augment='none')
    data = load_data(few)
    assert (n := len(data.of('train'))) % 2 and n < 64
    with pytest.raises(StudyError, match=f'--bs {n - 1}'): split_dls(create_dls(few, data), Team(0, 2))


def test_without_a_launcher(monkeypatch):
    for k in ('RANK', 'WORLD_SIZE'): monkeypatch.delenv(k, raising=False)
    with pytest.raises(StudyError, match='torchrun --nproc_per_node 2 --no-python imgstudy train digits --distributed'):
        cli.answer(['train', 'digits', '--model', 'lenet5', '--distributed'])


def test_a_launcher_without_the_option(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(StudyError, match='2 processes, which would all train the same: add --distributed'):
        cli.answer(['train', 'digits', '--model', 'lenet5'])


cannot = {'is one regression': dict(init='run:x', tune='probe'), 'torch.compile': dict(torch_compile=True),
          'start 2 or 4 or 8 of them, or take --bs 33': dict(bs=32)}


@pytest.mark.parametrize('says', cannot)
def test_what_cannot_be_spread(says):
    recipe = {k: v for k, v in cannot[says].items() if k in ('bs', 'tune')}
    other = {k: v for k, v in cannot[says].items() if k in ('init', 'torch_compile')}
    changed = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, **recipe), **other)
    with pytest.raises(StudyError, match=says): check_distributed([changed], 3)
    with pytest.raises(StudyError, match='one large training, and these are 2'): check_distributed([run, run], 2)


@pytest.mark.parametrize('n', [1, 2, 3, 4])
def test_parts_are_disjoint_and_whole(n):
    order = np.random.default_rng(0).permutation(50).tolist()
    parts = [part_of_batches(order, 12//n, r, n) for r in range(n)]
    for i in range(4): assert [x for p in parts for x in p[i*12//n:(i + 1)*12//n]] == order[12*i:12*(i + 1)]
    assert sum((part_of_all(order, r, n) for r in range(n)), []) == order


@pytest.mark.parametrize('keep', [True, False])  # images as pixels in memory; opened in every epoch
def test_loaders_give_parts(keep):
    data = load_data(run)
    own = lambda dl: [dl.dataset.items[i][0] for i in dl.get_idxs()]
    kind = {} if keep else dict(num_workers=0)
    dls = [split_dls(create_dls(run, data, keep, **kind), Team(r, 2)) for r in (0, 1)]
    assert [len(d.train) for d in dls] == [len(data.of('train'))//32]*2 and dls[0].train.bs == 16
    seen = [own(d.valid) for d in dls]
    assert len(seen[0] + seen[1]) == len({*seen[0], *seen[1]}) == len(data.of('valid'))
    assert [len(x) for x, _ in dls[0].train] == [16]*len(dls[0].train)
