"Training in float16: the loss scale is that of torch.amp.GradScaler, in fastai's loop, in called steps, in stacks and over a kill."
import pytest, torch
from safetensors.torch import load_file
from imgstudy.core import choose_precision, seed_everything
from imgstudy.data.loaders import create_dls
from imgstudy.data.split import load_data
from imgstudy.runs import Run, run_id
from imgstudy.study.create import create_run
from imgstudy.training.checkpoint import Checkpoint
from imgstudy.training.fit import fit, split_batches
from imgstudy.training.learner import create_learner
from imgstudy.training.loss_scale import LossScale, Scale
from imgstudy.training.stacked import fit_stacked, stack_learners
from imgstudy.training.train import train
from kills import kill_after

base = dict(dataset='digits', model='lenet5', epochs=2, precision='fp16', subset=200, bs=32, augment='none', size=16)


def learner_of(run):
    seed_everything(run.seed)
    return create_learner(run, create_dls(run, load_data(run)))


class Bursts(LossScale):
    "The gradients of every third step are infinite: so large a factor is tried again and again."
    name = 'loss_scale'
    def before_fit(self):
        super().before_fit()
        unscale, n = self.scale.unscale, [0]
        self.scale.every = 2
        def burst(grads):
            n[0] += 1
            if n[0] % 3 == 0: grads[0].fill_(torch.inf)
            return unscale(grads)
        self.scale.unscale = burst


def fitted(run, how, monkeypatch, parts=None):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    learn, bursts = learner_of(run), Bursts()
    monkeypatch.setattr('imgstudy.training.fit.scale_cbs', lambda learn: [bursts])
    if parts: split_batches(learn, parts)
    fit(learn, run.recipe, lines=1)
    return learn, bursts.scale


def gap(a, b): return max((x.float() - y.float()).abs().max().item() for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values()))


@pytest.mark.parametrize('options', [dict(), dict(opt='sgd', lr=.01), dict(opt='adam', clip=.5), dict(ema=.9), dict(opt='sgd', lr=.01, frozen_epochs=1)], ids=str)
def test_called_steps_skip_what_fastais_loop_skips(options, monkeypatch):
    run = create_run(**base | options)
    (a, s), (b, t) = (fitted(run, how, monkeypatch) for how in ('0', 'call'))
    assert s.value.item() == t.value.item() and s.good.item() == t.good.item()
    assert gap(a, b) < (1e-5 if run.recipe.opt == 'sgd' else 5e-5)


def test_fastais_loop_is_pytorchs(monkeypatch):
    "A loop as PyTorch's documentation has it, with GradScaler."
    run = create_run(**base | dict(opt='sgd', lr=.01, epochs=1))
    ours, scale = fitted(run, '0', monkeypatch)
    learn = learner_of(run)
    learn.create_opt()
    learn.opt.set_hypers(wd=learn.wd)
    scaler, opt, n = torch.amp.GradScaler('cpu', growth_interval=2), learn.opt.opt, 0
    rates = zip(ours.recorder.hps['lr'], ours.recorder.hps['mom'])
    learn.model.train()
    for (x, y), (lr, mom) in zip(learn.dls.train, rates):
        x, y = x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)
        for g in opt.param_groups: g.update(lr=lr, momentum=mom)
        scaler.scale(learn.loss_func(learn.model(x), y)).backward()
        n += 1
        if n % 3 == 0: next(learn.model.parameters()).grad.fill_(torch.inf)
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
    assert scaler.get_scale() == scale.value.item() and gap(ours, learn) < 1e-6


def test_in_parts_of_a_batch_the_loss_is_scaled_once(monkeypatch):
    run = create_run(**base | dict(opt='sgd', lr=.01))
    (a, s), (b, t) = fitted(run, '0', monkeypatch), fitted(run, '0', monkeypatch, parts=8)
    assert s.value.item() == t.value.item() and gap(a, b) < 1e-3 # float16 adds up in another order


@pytest.mark.parametrize('how', ['0', 'call'])
def test_a_member_that_skips_holds_no_other_back(how, monkeypatch):
    "The first member of a stack has infinite gradients; both end as alone."
    class One(LossScale):
        name = 'loss_scale'
        def before_fit(self):
            super().before_fit()
            unscale, n = self.scale.unscale, [0]
            def burst(grads):
                n[0] += 1
                if n[0] % 3 == 0: (grads[0][0] if self.scale.value.ndim == 2 else grads[0]).fill_(torch.inf)
                return unscale(grads)
            if self.burst: self.scale.unscale = burst
    made = []
    def cbs(learn):
        made.append(One())
        made[-1].burst = hasattr(learn, 'members') or not made[1:]
        return made[-1:]
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    monkeypatch.setattr('imgstudy.training.fit.scale_cbs', cbs)
    monkeypatch.setattr('imgstudy.training.stacked.scale_cbs', cbs)
    runs = [create_run(**base, seed=s) for s in (0, 1)]
    alone = []
    for r in runs:
        learn = learner_of(r)
        fit(learn, r.recipe, lines=1)
        alone.append(learn)
    members = fit_stacked(stack_learners([learner_of(r) for r in runs], [r.recipe for r in runs]), lines=1)
    assert made[2].scale.value.flatten().tolist() == [made[0].scale.value.item(), made[1].scale.value.item()]
    assert made[0].scale.value.item() < 2**16 == made[1].scale.value.item()
    for m, learn in zip(members, alone): assert gap(m.learn, learn) < 2e-3


@pytest.mark.parametrize('how', ['0', 'call'])
def test_killed_and_continued_the_factor_goes_on(how, tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    monkeypatch.setattr(Scale, 'every', 3) # it grows in each epoch
    run = create_run(**base | dict(epochs=3))
    whole = train(run, root=tmp_path/'whole')
    kill_after(2, monkeypatch, lambda: train(run, root=tmp_path/'cut'))
    cut = train(run, root=tmp_path/'cut')
    a, b = (load_file(r.path/'weights.safetensors') for r in (whole, cut))
    assert cut.info['cost']['resumed'] == [2] and all(torch.equal(a[k], b[k]) for k in a)
    assert whole.info['model']['precision'] == 'fp16' and whole.metrics['accuracy'] > .3


@pytest.mark.parametrize('bf16, capability, chosen', [(True, (9, 0), 'bf16'), (False, (7, 5), 'fp16'), (False, (6, 1), 'fp32')])
def test_which_cards_train_in_float16(bf16, capability, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda **_: bf16)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda *_: capability)
    assert choose_precision(device='cuda') == chosen and choose_precision('fp32', 'cuda') == 'fp32'
    assert choose_precision(device='mps') == 'fp32'


def test_old_ids_stay(): assert run_id(Run('digits', 'lenet5')) != run_id(Run('digits', 'lenet5', precision='fp16'))
