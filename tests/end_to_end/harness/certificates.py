"""A certificate authority and server certificates, made by openssl."""

from .processes import run

EXTENSIONS = "subjectAltName={names}\nbasicConstraints=critical,CA:false\nextendedKeyUsage=serverAuth\n"


class Authority:
    """Signs certificates; clients trust `certificate`."""

    def __init__(self, directory):
        self.directory = directory
        self.certificate = directory / "authority.pem"
        self.key = directory / "authority.key"
        # fmt: off
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", "/CN=Sealane trial authority", "-keyout", self.key, "-out", self.certificate)
        # fmt: on

    def sign(self, stem, kind, *names):
        """Writes STEM.pem and STEM.key for DNS `names`, `kind` "ecdsa" or "rsa", replacing both at once. Gives the serial number."""
        key_options = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}[kind]
        request, extensions = self.directory / f"{stem}.csr", self.directory / f"{stem}.ext"
        certificate, key = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        extensions.write_text(EXTENSIONS.format(names=",".join(f"DNS:{name}" for name in names)))
        # fmt: off
        run("openssl", "req", "-new", "-newkey", *key_options, "-nodes", "-subj", f"/CN={names[0]}",
            "-keyout", f"{key}.new", "-out", request)
        run("openssl", "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
            "-days", "30", "-extfile", extensions, "-out", f"{certificate}.new")
        serial = run("openssl", "x509", "-in", f"{certificate}.new", "-noout", "-serial").stdout.strip().partition("=")[2]
        # fmt: on
        (self.directory / f"{key.name}.new").replace(key)
        (self.directory / f"{certificate.name}.new").replace(certificate)
        return serial
