"""explore"""
import subprocess
from tests.cli.shell import Shell
from tests.cluster.world import World

def test_explore(operated: World, shell: Shell) -> None:
    operated.create("payments")
    operated.until_ready("payments")
    w = operated
    for args in (["get","--raw=/apis/circuitbreaker.dev"],["get","--raw=/openapi/v3/apis/circuitbreaker.dev/v1alpha1"],["auth","whoami","-o","json"],["version","-o","json"]):
        try:
            print(args, w.plane.kubectl(*args)[:3000])
        except Exception as e: print(args, e)
    import os
    for a in (["doctor"],["doctor","--redis-url",w.server.url],["doctor","--redis-url",w.server.url,"-A","-o","yaml"]):
        d = subprocess.run(shell.command(*a), env=shell.variables(), capture_output=True, text=True)
        print(a, d.returncode, d.stdout, d.stderr)
    assert 0
