"No kernel that make or the program starts warns of what is no fault."
import subprocess
from pathlib import Path
import pytest
from IPython.core.application import ENV_CONFIG_DIRS
from ipykernel.kernelapp import IPKernelApp
from traitlets.config import Config, PyFileConfigLoader

top = Path(__file__).parent.parent


@pytest.mark.parametrize('target', ['study', 'lab', 'bench', 'sweep'])
def test_make_tells_the_kernels_of_its_environment(target, tmp_path):
    "The file is one that IPython reads in an environment, and ipykernel takes the level from it."
    for name in ('settings.ini', 'setup.py', 'pyproject.toml'): (tmp_path/name).touch()
    said = subprocess.run(['make', '-f', str(top/'Makefile'), '-n', target], cwd=tmp_path, capture_output=True, text=True).stdout
    (line,) = [l for l in said.splitlines() if 'etc/ipython' in l]
    subprocess.run(line, shell=True, cwd=tmp_path, check=True)
    assert Path(ENV_CONFIG_DIRS[0]).parts[-2:] == ('etc', 'ipython')
    config = PyFileConfigLoader('ipython_kernel_config.py', str(tmp_path/'.venv/etc/ipython')).load_config()
    assert IPKernelApp(config=Config(config)).log_level == 40
