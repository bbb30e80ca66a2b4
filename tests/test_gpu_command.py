"The command `imgstudy gpu`, on the CPU with a few of its rows."
import json, os, subprocess, sys
from pathlib import Path
import pytest, torch

top = Path(__file__).parent.parent


def gpu(*words, **env):
    call = [sys.executable, '-c', 'from imgstudy.cli import main; main()', 'gpu', *words]
    return subprocess.run(call, cwd=top, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH='.') | env)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_it_says_so_in_one_line_and_exits_with_2(tmp_path):
    done = gpu('--out', str(tmp_path))
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.count('\n') == 1 and 'no NVIDIA GPU' in done.stderr and not [*tmp_path.iterdir()]


def test_some_rows_on_the_cpu(tmp_path):
    done = gpu('--cpu', '--only', '1,cnn_custom,16 lenet5,pytorch,hf_trainer,perceptron2', '--out', str(tmp_path/'gpu.json'))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path/'gpu.json').read_text())
    rows = {r['name']: r for r in record['rows']}
    assert record['what'] == 'gpu' and record['few_images'] and not record['to_come'] and not record['no_time']
    assert not [r for r in rows.values() if 'error' in r]
    assert rows['pytorch, lenet5']['ours_over_peer'] > 0 and rows['16 lenet5 as one']['images_per_s'] > 0
    assert len(done.stdout.splitlines()) == len(rows) + 1


def test_a_row_that_fails_stops_nothing():
    from imgstudy.gpu import Bench, Row, measure_row
    got = measure_row(Bench(cpu=True), Row(1, 'bad', lambda bench: 1/0))
    assert got['error'] == 'ZeroDivisionError: division by zero' and got['name'] == 'bad'


def test_what_there_is_no_time_for_is_listed(tmp_path):
    from imgstudy.gpu import gpu_rows, measure_gpu
    record = measure_gpu(.1, tmp_path, '2,7', cpu=True)
    assert record['no_time'] == [r.name for r in gpu_rows('2,7')] and record['rows'] == []
    assert len([*tmp_path.glob('gpu-*.json')]) == 1
