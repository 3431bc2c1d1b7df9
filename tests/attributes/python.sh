# shellcheck shell=bash
# What Python has of attributes.
echo >file; chown 5:6 file; mkdir d; chown 70000 d; setfacl -m u:70000:r file
python3 -c 'if True:
    import os
    for path in "file", "d":
        print(os.listxattr(path), os.stat(path))
        for name in "user.a", "trusted.a", "security.a":
            for value in b"", b"1", bytes(range(256)) * 5:
                os.setxattr(path, name, value)
                assert os.getxattr(path, name) == value
            with open(path) if path == "file" else open("/") as file:
                print(sorted(os.listxattr(path)), sorted(os.listxattr(file.fileno())))
            try:
                os.setxattr(path, name, b"", os.XATTR_CREATE)
            except OSError as error:
                print(error)
        os.removexattr(path, name)
        try:
            os.removexattr(path, name)
        except OSError as error:
            print(error)
' | sed 's/st_ino=[0-9]*, st_dev=[0-9]*//; s/st_.time=[0-9]*//g'
