"A progress bar where somebody can see it, plain lines elsewhere."
import fcntl, json, os, pty, struct, subprocess, sys, termios
from pathlib import Path
import pytest

train = '''
from imgstudy.training.train import train_all
from imgstudy.study.create import create_run
import tempfile
train_all([create_run(dataset='digits', model='lenet5', epochs=2, subset=100)], root=tempfile.mkdtemp())
'''


def on_terminal(code, **env):
    "What `code` writes to standard output and to a terminal as standard error."
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))  # without a width tqdm draws nothing
    done = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, **env})
    os.close(theirs)
    drawn = b''
    try:
        while part := os.read(ours, 4096): drawn += part
    except OSError: pass  # the other side is closed
    return done.communicate()[0].decode(), drawn.decode()


def test_a_training_draws_a_bar_on_a_terminal_and_keeps_its_lines():
    said, drawn = on_terminal(train)
    assert said.count('epoch ') == 2 and 'train loss' in said and '\r' not in said
    assert '\r' in drawn and 'lenet5, seed 0' in drawn and '%, ' in drawn


@pytest.mark.parametrize('env, drawn', [(dict(), True), (dict(IMGSTUDY_PROGRESS='lines'), False), (dict(IMGSTUDY_PROGRESS='bar'), True)])
def test_our_runners_turn_it_off(env, drawn):
    code = "from imgstudy.core import track_progress\nwith track_progress(3, desc='images') as bar: bar.update(); bar.refresh()"
    assert ('images' in on_terminal(code, **env)[1]) is drawn


def test_a_pipe_gets_lines():
    done = subprocess.run([sys.executable, '-c', train], capture_output=True, text=True)
    assert done.stdout.count('epoch ') == 2 and '\r' not in done.stdout + done.stderr


def test_a_sweep_leaves_nothing_behind(tmp_path):
    "Its workers are ended at once, and what they share with their parent would be called leaked as that ends."
    code = f"""
from imgstudy.sweep.sweep import sweep
from imgstudy.study.create import create_run
sweep([create_run(dataset='digits', model='lenet5', epochs=1, subset=100)], root={str(tmp_path)!r}, notebook=False, jobs=1)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and 'leaked' not in done.stderr, done.stderr
    assert len(list(tmp_path.glob('*/record.json'))) == 1


@pytest.mark.parametrize('said, shown', [('bar', True), ('lines', False), ('off', False)])
def test_the_variable_decides(said, shown, monkeypatch):
    from imgstudy.core import plain_progress, shows_bars
    monkeypatch.setenv('IMGSTUDY_PROGRESS', said)
    assert shows_bars() is shown
    with plain_progress(): assert not shows_bars()
    assert os.environ['IMGSTUDY_PROGRESS'] == said


def asks(folder):
    cell = dict(cell_type='code', id='a', execution_count=None, metadata={}, outputs=[],
                source='from imgstudy.core import shows_bars; print(shows_bars())')
    meta = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
    path = folder/'ask.ipynb'
    path.write_text(json.dumps(dict(cells=[cell], metadata=meta, nbformat=4, nbformat_minor=5)))
    return path


def printed(path): return json.loads(Path(path).read_text())['cells'][0]['outputs'][0]['text']


@pytest.mark.parametrize('how, shown', [('papermill', False), ('jupyter', False), ('runner', False), ('somebody', True)])
def test_in_a_kernel(how, shown, tmp_path, monkeypatch):
    "papermill and nbconvert on a command line are known by name, our runners say so; else somebody sits before it."
    import contextlib
    from imgstudy.core import plain_progress
    monkeypatch.delenv('IMGSTUDY_PROGRESS', raising=False)
    path, out, bin = asks(tmp_path), tmp_path/'out.ipynb', Path(sys.executable).parent
    if how == 'papermill': subprocess.run([bin/'papermill', path, out], check=True, capture_output=True)
    elif how == 'jupyter': subprocess.run([bin/'jupyter-nbconvert', '--to', 'notebook', '--execute', '--output', out, path], check=True, capture_output=True)
    else:
        import papermill
        with plain_progress() if how == 'runner' else contextlib.nullcontext(): papermill.execute_notebook(path, out, progress_bar=False)
    assert printed(out)[0].strip() == str(shown)
