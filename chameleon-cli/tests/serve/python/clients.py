"""Public clients against a running server, unmodified: `openai`, `langchain-openai`, `litellm` and `curl`.

    chameleon serve --model MODEL --name tiny --adapter mix=FOLDER --listen 127.0.0.1:8123
    python clients.py http://127.0.0.1:8123 tiny tiny:mix

A client that is not installed is skipped, and named.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

PROMPT = "The fox"
MESSAGES = [{"role": "user", "content": PROMPT}]


def with_openai(address, base, adapted):
    import openai

    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == [base, adapted]
    assert client.models.retrieve(adapted).id == adapted

    for model in (base, adapted):
        whole = client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0)
        pieces = client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0, stream=True)
        assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
        assert whole.usage.completion_tokens == 8

        chat = client.chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3, n=2
        )
        assert [choice.index for choice in chat.choices] == [0, 1]
        answer = chat.choices[0]
        assert len(answer.logprobs.content) == 8 and len(answer.logprobs.content[0].top_logprobs) == 3
        note = answer.model_extra["chameleon"]
        assert (note["cluster"] is None) == (model == base)

        pieces = list(
            client.chat.completions.create(
                model=model,
                messages=MESSAGES,
                max_completion_tokens=8,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"chameleon": {"scale": 1.0}},
            )
        )
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert text == answer.message.content
        assert pieces[-1].usage.completion_tokens == 8
        # An answer may be part of the next question as it came.
        conversation = [*MESSAGES, answer.message.model_dump(include={"role", "content", "refusal", "tool_calls"})]
        follow_up = [*conversation, {"role": "user", "content": "And then?"}]
        client.chat.completions.create(model=model, messages=follow_up, max_tokens=4)

    # The client's own streaming helper puts the pieces together again.
    with client.chat.completions.stream(model=base, messages=MESSAGES, max_tokens=8, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
    chat = client.chat.completions.create(model=base, messages=MESSAGES, max_tokens=8, temperature=0)
    assert text == chat.choices[0].message.content

    likely = client.completions.create(model=base, prompt=PROMPT, max_tokens=4, logprobs=2, temperature=0)
    assert len(likely.choices[0].logprobs.top_logprobs) == 4
    # The client asks for base64 of its own accord, and for floats when told.
    default = client.embeddings.create(model=base, input=[PROMPT])
    floats = client.embeddings.create(model=base, input=[PROMPT], encoding_format="float")
    pairs = zip(default.data[0].embedding, floats.data[0].embedding, strict=True)
    assert all(abs(left - right) < 1e-6 for left, right in pairs)

    for error, arguments in [
        (openai.NotFoundError, {"model": "none"}),
        (openai.BadRequestError, {"temperature": 9}),
        (openai.BadRequestError, {"max_tokens": 10**9}),
        (openai.BadRequestError, {"presence_penalty": 1}),
        (openai.BadRequestError, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (openai.BadRequestError, {"messages": [{"role": "user", "content": "The fox " * 500}]}),
    ]:
        request = {"model": base, "messages": MESSAGES, **arguments}
        try:
            client.chat.completions.create(**request)
        except error as found:
            assert found.code and found.body["message"], found
        else:
            raise AssertionError(f"{arguments} was taken")


def with_langchain_openai(address, base, adapted):
    from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

    shared = {"base_url": f"{address}/v1", "api_key": "none"}
    chat = ChatOpenAI(model=adapted, max_tokens=8, temperature=0, **shared)
    whole = chat.invoke(PROMPT).content
    assert "".join(piece.content for piece in chat.stream(PROMPT)) == whole
    complete = OpenAI(model=base, max_tokens=8, temperature=0, **shared)
    assert len(complete.batch([PROMPT, "fn total"])) == 2
    embeddings = OpenAIEmbeddings(model=base, check_embedding_ctx_length=False, **shared)
    assert len(embeddings.embed_documents([PROMPT, "fn total"])) == 2


def with_litellm(address, base, adapted):
    # It would fetch a list of prices otherwise.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    shared = {"api_base": f"{address}/v1", "api_key": "none", "max_tokens": 8, "temperature": 0}
    model = f"openai/{adapted}"
    whole = litellm.completion(model=model, messages=MESSAGES, **shared)
    pieces = litellm.completion(model=model, messages=MESSAGES, stream=True, **shared)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == whole.choices[0].message.content
    assert litellm.text_completion(model=f"text-completion-openai/{base}", prompt=PROMPT, **shared).choices[0].text


def with_curl(address, base, _adapted):
    def curl(*arguments):
        output = subprocess.run(["curl", "-sS", "-N", *arguments], capture_output=True, text=True, check=True)
        return output.stdout

    def post(path, body):
        return curl("-H", "Content-Type: application/json", "-d", json.dumps(body), address + path)

    body = {"model": base, "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    whole = json.loads(post("/v1/chat/completions", body))
    assert whole["object"] == "chat.completion"
    assert post("/v1/chat/completions", {**body, "stream": True}).endswith("data: [DONE]\n\n")
    assert json.loads(curl(f"{address}/ready"))["status"] == "ready"
    assert "chameleon_generated_tokens_total" in curl(f"{address}/metrics")


def is_there(name):
    if name == "curl":
        return shutil.which(name) is not None
    return importlib.util.find_spec(name) is not None


def main():
    address, base, adapted = sys.argv[1:]
    for name, run in [
        ("openai", with_openai),
        ("langchain_openai", with_langchain_openai),
        ("litellm", with_litellm),
        ("curl", with_curl),
    ]:
        if is_there(name):
            run(address, base, adapted)
            print(f"{name}: passed")
        else:
            print(f"{name}: SKIPPED, not installed")


if __name__ == "__main__":
    main()
