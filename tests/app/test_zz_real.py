import subprocess, json, requests, shutil
from app.bundle_watch import load_serving
from models.catalogue import Catalogue
def test_real(serve_in_thread, trained_home, tmp_path):
    with Catalogue.open(trained_home) as c:
        ps=[c.image_store.path(p.image) for p in c.field_photos()][:2]
    port = serve_in_thread(trained_home, load_serving, device="cpu")
    for i,p in enumerate(ps): shutil.copy(p, tmp_path/f"p{i}.jpg")
    out = subprocess.run(["curl","-s","-i","-F",f"images=@{tmp_path}/p0.jpg","-F","organs=flower","-F",f"images=@{tmp_path}/p1.jpg","-F","organs=leaf",f"http://127.0.0.1:{port}/v2/identify/all?include-related-images=true&nb-results=1&no-reject=true&api-key=KEY"],capture_output=True,text=True).stdout
    print(out[:3000])
    files=[('images',(str(tmp_path/"p0.jpg"),open(tmp_path/"p0.jpg",'rb'))),('images',(str(tmp_path/"p1.jpg"),open(tmp_path/"p1.jpg",'rb')))]
    prepared=requests.Request('POST',url=f"http://127.0.0.1:{port}/v2/identify/all?api-key=x&no-reject=true",files=files,data={'organs':['flower','leaf']}).prepare()
    r=requests.Session().send(prepared); print(r.status_code, r.json()["bestMatch"], r.json()["query"])
    print(requests.get(f"http://127.0.0.1:{port}/v2/species?x="+"a"*70000).status_code, requests.get(f"http://127.0.0.1:{port}/v2/species?x="+"a"*40000).text)
