import pytest

from lightrft.types import Prompt, Rollout


@pytest.fixture
def rollout():
    def make(response, reference=None, *, question="q", reward=None, **prompt):
        messages = ({"role": "user", "content": question},)
        return Rollout(
            prompt=Prompt(id="p", messages=messages, reference=reference, **prompt),
            group=0,
            prompt_ids=(1,),
            response_ids=(2,),
            response=response,
            response_mask=(0, 1),
            rollout_logprobs=(-1.0,),
            finish_reason="stop",
            policy_version=0,
            reward=reward,
        )

    return make
